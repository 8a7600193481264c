"""Explains the attention modules of a trained network: pictures, and their effect on the error.

    rattn explain --workdir=runs/mine --image photo.jpg --out=sheets --channels=3,17
    rattn explain --workdir=runs/mine --ablate --split=test

The first writes a sheet for each image, as figure 1 of the paper; the second prints a table of the
error with the masks of each module replaced by zero, by their mean, and by those of other images.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence

from etils import epath
from PIL import Image

from rattn_jax.cli import Parser, add_workdir, align, errors_on_one_line, positive, working
from rattn_jax.config.paths import path_of
from rattn_jax.errors import UsageError
from rattn_jax.inference.ablation import REPLACEMENTS, Ablation, ablate_masks
from rattn_jax.inference.attention_sheet import NUM_CHANNELS, draw_image
from rattn_jax.inference.network import Classifier, load

_OF_PICTURES = ("out", "channels")
_OF_ERRORS = ("split", "examples", "batch_size", "data_dir", "json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Does what the command line asks for."""
    parser = Parser("rattn explain", __doc__)
    _add_flags(parser)
    options = parser.parse(arguments)
    if bool(options.image) == options.ablate:
        parser.error("either --image or --ablate is needed, and not both")
    other, flags = ("--ablate", _OF_ERRORS) if options.image else ("--image", _OF_PICTURES)
    for flag in flags:
        if vars(options)[flag] is not None:
            parser.error(f"--{flag.replace('_', '-')} is for {other}: leave it out")
    with errors_on_one_line(parser.prog):
        with working("reading the run"):
            network = load(options.workdir, options.step)
        if options.ablate:
            _print_errors(network, options)
        else:
            _draw_sheets(network, options)


def _add_flags(parser: Parser) -> None:
    add_workdir(parser)
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE")
    pictures.add_argument("--out", help="folder of the pictures (this one)")
    pictures.add_argument(
        "--channels",
        type=_channels,
        help=f"to draw, such as 3,17 (the {NUM_CHANNELS} strongest of each module)",
    )
    errors = parser.add_argument_group("errors")
    errors.add_argument(
        "--ablate", "--surgery", action="store_true", help="errors with masks replaced"
    )
    errors.add_argument("--split", help="test, train or validation (test)")
    errors.add_argument("--examples", type=positive, help="how many, drawn at random (all)")
    errors.add_argument("--batch-size", type=positive, help="images at a time (64)")
    errors.add_argument("--data-dir", help="where the dataset is now, if it has moved")
    errors.add_argument(
        "--json", action="store_const", const=True, help="machine-readable, on one line"
    )


def _channels(text: str) -> list[int]:
    try:
        channels = [int(part) for part in text.split(",")]
    except ValueError:
        channels = [-1]
    if min(channels) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers from 0, such as 3,17")
    return channels


def _print_errors(network: Classifier, options: argparse.Namespace) -> None:
    network, split = network.with_data_dir(options.data_dir), options.split or "test"
    with working(f"evaluating {split} with masks replaced"):
        ablation = ablate_masks(
            network, split, batch_size=options.batch_size or 64, num_examples=options.examples
        )
    as_json = json.dumps(dataclasses.asdict(ablation))
    print(as_json if options.json else as_table(ablation))


def as_table(ablation: Ablation) -> str:
    """Formats the errors in percent, and their increase."""

    def cell(error: float) -> str:
        return f"{100 * error:.2f} ({100 * (error - ablation.error):+.2f})"

    heading = [f"{ablation.split} error, %", "mean of mask", *REPLACEMENTS]
    rows = [
        [
            m.module,
            "" if m.mask_mean is None else f"{m.mask_mean:.3f}",
            *(cell(m.errors[replacement]) for replacement in REPLACEMENTS),
        ]
        for m in ablation.modules
    ]
    return align([heading, ["as trained", "", f"{100 * ablation.error:.2f}", "", ""], *rows])


def _draw_sheets(network: Classifier, options: argparse.Namespace) -> None:
    taken: set[str] = set()
    folder = path_of(options.out or ".")
    for file in map(epath.Path, options.image):
        with working(f"drawing {file}"):
            sheet = draw_image(network, file, options.channels or [])
        print(_save(sheet, folder, f"{file.stem}_attention", taken), flush=True)


def _save(sheet: Image.Image, folder: epath.Path, name: str, taken: set[str]) -> epath.Path:
    """Writes a sheet under a name that this call has not used yet."""
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


if __name__ == "__main__":
    main()
