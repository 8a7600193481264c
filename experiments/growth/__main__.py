"""Measures how costs grow: what grows faster than its work is a defect.

    python -m experiments.growth --out=growth
    python -m experiments.growth --out=growth --axes batch devices

Axes: `batch` (train step of Attention-56 for CIFAR, 1 to 512 images), `depth` (Attention-56 to
-452 for CIFAR, batch 8, as their configs have them), `side` (Attention-56 for ImageNet, batch 2,
images of 32 to 320 pixels), `images` (a folder with 100 to 100,000: from its opening to the first
batch) and `devices` (batch 64 on 1 to 8 devices of one CPU). Work is the network's multiply-adds;
on the last two axes the number of images, and always the same. Each size runs in a process of its
own. Writes `growth.json`, from which a second start goes on, `growth.md` and `growth.html`.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.growth.measure import AXES, Costs, measure
from experiments.growth.page import markdown, page
from rattn_jax.cli import Parser, errors_on_one_line, set_up_process, working
from rattn_jax.runs.files import replace_text

SIZES = {
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "depth": (56, 92, 128, 164, 236, 452),
    "side": (32, 64, 96, 128, 160, 192, 224, 256, 288, 320),
    "images": (100, 1_000, 10_000, 100_000),
    "devices": (1, 2, 4, 8),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not yet in growth.json, and writes the pages."""
    set_up_process()
    parser = Parser("experiments.growth", __doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    options = parser.parse(arguments)
    with (
        errors_on_one_line(parser.prog, options.out),
        working("measuring") as console,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "growth.json"
        found: dict[str, dict[str, Costs]] = json.loads(file.read_text()) if file.exists() else {}
        for axis in options.axes:
            for size in SIZES[axis]:
                if str(size) in found.setdefault(axis, {}):
                    continue
                console.enter(f"measuring {axis} {size:,}")
                found[axis][str(size)] = measure(axis, size, Path(scratch))
                replace_text(file, json.dumps(found, indent=2) + "\n")
        replace_text(folder / "growth.md", markdown(found))
        replace_text(folder / "growth.html", page(found))
        print(markdown(found))


if __name__ == "__main__":
    main()
