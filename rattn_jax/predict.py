"""Prints the most probable classes of images.

    rattn predict --workdir=runs/mine photo.jpg folder/ --top=5

Images are decoded and cropped as in evaluation. There is one line per image, in the order of the
command line and in alphabetical order within folders; images that cannot be read are reported on
stderr. Exit status: 0 all predicted, 1 some could not be read, 2 bad usage, or none could be read.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np
from etils import epath

from rattn_jax.cli import (
    BAD_USAGE,
    FAILED,
    Parser,
    add_workdir,
    errors_on_one_line,
    positive,
    say,
    working,
)
from rattn_jax.data.image_files import LeftOut, find_images
from rattn_jax.inference.network import Classifier, load


def _best(row: np.ndarray, network: Classifier, top: int) -> list[dict[str, object]]:
    names = network.readable_names
    return [
        {"class": names[i], "index": int(i), "probability": float(row[i])}
        for i in np.argsort(-row, kind="stable")[:top]
    ]


def _as_text(file: epath.Path, best: list[dict[str, object]]) -> str:
    name = str(file).replace("\n", "\\n")
    return "  ".join([name, *(f"{b['class']} {b['probability']:.2%}" for b in best)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Predicts what the command line names."""
    parser = Parser("rattn predict", __doc__)
    add_workdir(parser)
    parser.add_argument("image", nargs="+", help="files, and folders of images")
    parser.add_argument("--top", type=positive, default=5, help="classes to name (5)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at a time (64)")
    options = parser.parse(arguments)
    with errors_on_one_line(parser.prog):
        left_out = LeftOut()
        files = find_images(options.image, left_out)
        if files != [epath.Path(path) for path in options.image]:  # there are folders among them
            say(parser.prog, f"{len(files):,} images{f', {left_out}' if left_out else ''}")
        with working("reading the run"):
            network = load(options.workdir, options.step)
        num_bad = 0
        with working("predicting") as console:
            found = network.predict_files(files, batch_size=options.batch_size)
            for number, (file, row) in enumerate(found, start=1):
                console.enter("predicting", f"{number} of {len(files)} done")
                if isinstance(row, str):
                    num_bad += 1
                    console.say(f"{parser.prog}: {file} cannot be read: {row}")
                    continue
                best = _best(row, network, options.top)
                as_json = json.dumps({"image": str(file), "predictions": best})
                print(as_json if options.json else _as_text(file, best), flush=True)
        if num_bad:
            sys.exit(BAD_USAGE if num_bad == len(files) else FAILED)


if __name__ == "__main__":
    main()
