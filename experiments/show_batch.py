"""Draws a training batch after all augmentation, as the network sees it.

    python -m experiments.show_batch --config=cifar10_attention92_modern --output=batch.png

Images are those of the train step with the normalization undone; below each are its classes with
their fractions of the target.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from rattn_jax.cli import Parser, errors_on_one_line, positive, set_up_process, working
from rattn_jax.config.load import load_config, parse_config
from rattn_jax.data.batches import take
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.class_names import readable_names
from rattn_jax.data.epochs import in_steps
from rattn_jax.data.open_loader import image_sizes, open_loader
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import find_devices, make_mesh
from rattn_jax.training.init_from import like_source, normalization_of, open_source
from rattn_jax.training.step_functions import build_steps
from rattn_jax.training.steps import for_data, prepare

_COLUMNS, _MARGIN, _SMALLEST = 8, 6, 112  # images a row; pixels; side of an image in the picture


def training_batch(keys: ConfigDict, step: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images uint8 [B, H, W, 3], targets [B, K] and class names of a training batch."""
    config = like_source(parse_config(keys))
    dataset = build_dataset(config)
    config = in_steps(config, dataset)
    mesh, spec = make_mesh(find_devices()[:1]), build_spec(config, dataset)
    sizes, steps = image_sizes(config.dataset, spec), build_steps(config, spec, mesh)
    kept = normalization_of(open_source(config, steps.model), sizes)
    loader = open_loader(config, dataset, sizes, mesh, kept)
    data, rows, _ = loader.train(step, 1)
    loader.close()
    batch = take(data, jax.tree.map(lambda x: x[0], rows))
    positions = jnp.arange(len(batch.labels))
    preprocessing = for_data(steps.rule.preprocessing, data)
    images, targets = prepare(batch, data, jnp.int32(step), positions, preprocessing)
    shown = images / data.normalization.scale + data.normalization.mean
    pixels = np.asarray(jnp.clip(jnp.round(shown), 0, 255).astype(jnp.uint8))
    return pixels, np.asarray(targets), list(readable_names(dataset.class_names))


def caption(target: np.ndarray, class_names: list[str]) -> str:
    """The classes with the largest shares; shares of less than 5 % are left out."""
    order = [i for i in np.argsort(-target)[:2] if target[i] >= 0.05]
    if len(order) == 1:
        return class_names[order[0]]
    return "\n".join(f"{target[i]:.0%} {class_names[i]}" for i in order)


def draw(images: np.ndarray, captions: list[str]) -> Image.Image:
    """Draws a grid of images with captions."""
    size = images.shape[1]
    scale = max(1, round(_SMALLEST / size))
    font = ImageFont.load_default(11)
    side, text = size * scale, 30
    rows = -(-len(images) // _COLUMNS)
    width = _COLUMNS * (side + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, rows * (side + text + _MARGIN) + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (image, words) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, _COLUMNS)
        x = _MARGIN + column * (side + _MARGIN)
        y = _MARGIN + row * (side + text + _MARGIN)
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (x, y))
        for line, part in enumerate(words.split("\n")):
            while pen.textlength(part, font) > side:
                part = f"{part.rstrip('…')[:-1]}…"
            pen.text((x, y + side + 1 + 13 * line), part, "black", font)
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the picture."""
    set_up_process()
    parser = Parser("experiments.show_batch", __doc__)
    parser.add_argument("--config", required=True, metavar="NAME", help="a config, or a file")
    parser.add_argument("--output", default="batch.png", help="the picture (batch.png)")
    parser.add_argument("--step", type=int, default=0, help="number of updates done before (0)")
    parser.add_argument("--count", type=positive, default=40, help="images to show, at most (40)")
    options, overrides = parser.parse_with_overrides(arguments)
    with errors_on_one_line(parser.prog):
        config = load_config(options.config, overrides)
        if options.step < 0:
            raise UsageError(f"--step={options.step}: must be at least 0")
        with working("preparing the batch"):
            images, targets, class_names = training_batch(config, options.step)
        count = min(options.count, len(images))
        captions = [caption(target, class_names) for target in targets[:count]]
        try:
            draw(images[:count], captions).save(options.output)
        except (OSError, ValueError) as error:  # ValueError: Pillow knows no such format
            raise UsageError(
                f"--output={options.output} cannot be written ({error}): choose another file"
            ) from error
        print(f"{count} of {len(images)} images of update {options.step}: {options.output}")


if __name__ == "__main__":
    main()
