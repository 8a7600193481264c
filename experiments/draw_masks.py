"""Draws the masks of a trained network over one test image of each class.

    python -m experiments.draw_masks --pretrained=attention56_cifar10 --out=docs/masks.png

The images are the first of each class in an order drawn at random, the same every time: they are
not selected. There is a row for each of the channels whose masks vary most within an image, two of
each attention module: dark where the mask is 0, light where it is 1.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rattn_jax.cli import Parser, add_workdir, errors_on_one_line, set_up_process, working
from rattn_jax.errors import UsageError
from rattn_jax.inference.examples import open_split, read_batches
from rattn_jax.inference.network import Classifier, load
from rattn_jax.report.pictures import heat

_MOST, _CHANNELS = 10, 2  # classes; channels of a module
_SIDE, _GAP, _LABEL, _CAPTION = 96, 4, 132, 34  # pixels
_FONT = ImageFont.load_default(13)


def one_of_each_class(network: Classifier) -> np.ndarray:
    """A test image of each of the first ten classes, uint8 [K, S, S, 3]."""
    wanted = min(_MOST, len(network.class_names))
    found: dict[int, np.ndarray] = {}
    examples, excluded = open_split(network, "test")
    for batch in read_batches(network, examples, excluded, batch_size=64):
        for image, label in zip(batch.images[batch.mask], batch.labels[batch.mask], strict=True):
            if label < wanted:
                found.setdefault(int(label), image)
        if len(found) == wanted:
            break
    return np.stack([found[label] for label in sorted(found)])


def most_varied(masks: np.ndarray) -> list[int]:
    """Channels of masks [n, h, w, C] with the largest deviation within an image."""
    deviation = masks.std(axis=(1, 2)).mean(axis=0)
    return np.argsort(-deviation, kind="stable")[:_CHANNELS].tolist()


def draw(network: Classifier, images: np.ndarray) -> Image.Image:
    """Draws a row of images with the predicted classes, and rows of their masks.

    Args:
        network: a network with attention modules.
        images: uint8 [n, S, S, 3].

    Raises:
        UsageError: the network has no attention modules.
    """
    probabilities, maps = network.attention(images)
    best = [network.most_probable(row, 1)[0] for row in probabilities]
    captions = [f"{answer['class']}\n{answer['probability']:.0%}" for answer in best]
    rows = [("test images\nand predictions", list(images))]
    for name, found in maps.items():
        masks = np.asarray(found.mask)
        height, width = masks.shape[1:3]
        for channel in most_varied(masks):
            label = f"mask of\n{name}\n{height}x{width}\nchannel {channel}"
            rows.append((label, [heat(mask) for mask in masks[..., channel]]))

    step = _SIDE + _GAP
    picture = Image.new("RGB", (_LABEL + len(images) * step, _CAPTION + len(rows) * step), "white")
    pen = ImageDraw.Draw(picture)
    for number, (label, tiles) in enumerate(rows):
        y = number * step + (_CAPTION if number else 0)
        pen.multiline_text((4, y + 4), label, "black", _FONT, spacing=2)
        for i, tile in enumerate(tiles):
            large = Image.fromarray(tile).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            picture.paste(large, (_LABEL + i * step, y))
    for i, caption in enumerate(captions):
        pen.multiline_text((_LABEL + i * step, _SIDE + 2), caption, "black", _FONT, spacing=2)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the picture."""
    set_up_process()
    add_workdir(parser := Parser("experiments.draw_masks", __doc__))
    parser.add_argument("--out", default="masks.png", help="the picture (masks.png)")
    parser.add_argument("--data-dir", help="of the dataset, if it is no longer the run's")
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog), working("drawing masks"):
        network = load(options.workdir, options.step).with_data_dir(options.data_dir)
        picture = draw(network, one_of_each_class(network))
        try:
            picture.save(options.out, optimize=True)
        except (OSError, ValueError) as error:  # ValueError: Pillow knows no such format
            raise UsageError(
                f"--out={options.out} cannot be written ({error}): choose another file"
            ) from error
        print(f"{options.out}: {picture.width}x{picture.height} pixels")


if __name__ == "__main__":
    main()
