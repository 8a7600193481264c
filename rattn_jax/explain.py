"""What the attention modules of a trained network do: as pictures, and to the error.

    python -m rattn_jax.explain --workdir=RUN --image=FILE... [--out=FOLDER] [--channels=3,17]
    python -m rattn_jax.explain --workdir=RUN --surgery [--split=test] [--json]

The first writes a sheet for each image (`report/mask_sheet.py`), the second a table of the error
with each module's masks replaced (`inference/ablation.py`).
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from rattn_jax.cli import add_workdir, align, errors_on_one_line, positive
from rattn_jax.data.images import BadImageError
from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.ablation import REPLACEMENTS, Surgery, operate
from rattn_jax.inference.network import Trained, load
from rattn_jax.models.attention import ModuleMaps
from rattn_jax.report.mask_sheet import draw_sheet, strongest_channels

_NUM_CHANNELS = 3  # drawn of each module, unless they are named


def draw_image(network: Trained, file: epath.Path, channels: Sequence[int] = ()) -> Image.Image:
    """The sheet of an image.

    Args:
        network: a trained network.
        file: the image.
        channels: those to draw, of the modules that have them; none: the strongest three of each.

    Raises:
        UsageError: the network has no attention modules, or none with one of the channels.
        DataError: the image cannot be read.
    """
    try:
        image = network.decode(file)
    except (BadImageError, OSError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    (probabilities,), batch = network.attention(image[None])
    maps = {name: ModuleMaps(*(x[0] for x in found)) for name, found in batch.items()}
    most = max(found.mask.shape[-1] for found in maps.values())
    if max(channels, default=0) >= most:
        raise UsageError(
            f"--channels={max(channels)}: must be below {most}, the most that a module has"
        )
    best = np.argsort(-probabilities, kind="stable")[:4]
    answers = [f"{network.class_names[i]} {probabilities[i]:.1%}" for i in best]
    title = [
        f"{file.name}: {answers[0]}",
        f"then {', '.join(answers[1:])}" if answers[1:] else "",
        f"{network.config.model.name} after {network.step:,} updates, {network.folder.name}",
    ]
    chosen = {
        name: [c for c in channels if c < found.mask.shape[-1]]
        if channels
        else strongest_channels(found, _NUM_CHANNELS)
        for name, found in maps.items()
    }
    lowest = -1.0 if network.config.model.mask_activation == "channel" else 0.0
    return draw_sheet(image, title, maps, chosen, lowest=lowest)


def _save(sheet: Image.Image, folder: epath.Path, name: str, taken: set[str]) -> epath.Path:
    """Writes a sheet under a name that no other one of this call has."""
    numbered = (f"{name}-{i}" for i in itertools.count(2))
    while name in taken:
        name = next(numbered)
    taken.add(name)
    path = folder / f"{name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as output:
            sheet.save(output, "PNG")
    except OSError as error:
        raise UsageError(
            f"--out={folder} cannot be written ({error.strerror}): choose another folder"
        ) from error
    return path


def as_table(surgery: Surgery) -> str:
    """The errors in percent, and how much they rise."""

    def cell(error: float) -> str:
        return f"{100 * error:.2f} ({100 * (error - surgery.error):+.2f})"

    heading = [f"{surgery.split} error, %", "mean of mask", *REPLACEMENTS]
    rows = [
        [
            m.module,
            "" if m.mask_mean is None else f"{m.mask_mean:.3f}",
            *(cell(m.errors[replacement]) for replacement in REPLACEMENTS),
        ]
        for m in surgery.modules
    ]
    return align([heading, ["as trained", "", f"{100 * surgery.error:.2f}", "", ""], *rows])


def _channels(text: str) -> list[int]:
    try:
        channels = [int(part) for part in text.split(",")]
    except ValueError:
        channels = [-1]
    if min(channels) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers from 0, such as 3,17")
    return channels


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rattn_jax.explain", description=__doc__.split("\n")[0])
    add_workdir(parser)
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE")
    pictures.add_argument("--out", default=".", help="folder of the pictures (this one)")
    pictures.add_argument(
        "--channels",
        type=_channels,
        default=[],
        help=f"to draw, such as 3,17 (the {_NUM_CHANNELS} strongest of each module)",
    )
    errors = parser.add_argument_group("errors")
    errors.add_argument("--surgery", action="store_true", help="errors with masks replaced")
    errors.add_argument("--split", default="test", help="test, train or validation (test)")
    errors.add_argument("--examples", type=positive, help="how many, drawn at random (all)")
    errors.add_argument("--batch-size", type=positive, default=64, help="images at a time (64)")
    errors.add_argument("--data-dir", help="of the dataset, if it is no longer the run's")
    errors.add_argument("--json", action="store_true", help="machine-readable, on one line")
    options = parser.parse_args(arguments)
    if bool(options.image) == options.surgery:
        parser.error("either --image or --surgery is needed, and not both")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks for."""
    options = _arguments(arguments)
    with errors_on_one_line("explain"):
        network = load(options.workdir)
        if options.surgery:
            if options.data_dir:
                config = dataclasses.replace(network.config, data_dir=options.data_dir)
                network = dataclasses.replace(network, config=config)
            surgery = operate(
                network,
                options.split,
                batch_size=options.batch_size,
                num_examples=options.examples,
            )
            as_json = json.dumps(dataclasses.asdict(surgery))
            print(as_json if options.json else as_table(surgery))
            return
        taken: set[str] = set()
        for file in map(epath.Path, options.image):
            sheet = draw_image(network, file, options.channels)
            print(_save(sheet, epath.Path(options.out), f"{file.stem}_attention", taken))


if __name__ == "__main__":
    main()
