"""Classes of images, from a trained network.

    python -m rattn_jax.predict --workdir=RUN IMAGE_OR_FOLDER... [--top=5] [--json]

Images are decoded as evaluation decodes them. A line an image, in the order of the command line,
folders in alphabetical order; those that cannot be read are named on stderr. Exit status: 0 all
predicted, 1 some could not be read, 2 bad usage, or none could be read.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath

from rattn_jax.cli import BAD_USAGE, FAILED, add_workdir, errors_on_one_line, positive, say
from rattn_jax.data.image_folder import SUFFIXES
from rattn_jax.data.images import BadImageError
from rattn_jax.errors import UsageError
from rattn_jax.inference.network import Trained, load

_PROGRAM = "predict"


def find_images(paths: Sequence[str]) -> list[epath.Path]:
    """The files that are named, and the images in the folders that are, at any depth.

    Raises:
        UsageError: there is no such file, or no image in a folder.
    """
    found: list[epath.Path] = []
    for path in map(epath.Path, paths):
        if path.is_dir():
            images = list(_images_below(path))
            if not images:
                raise UsageError(
                    f"folder {path} has no image: must hold {', '.join(sorted(SUFFIXES))} files; "
                    "name files of other kinds one by one"
                )
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder; correct the path")
    return found


def _images_below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _images_below(entry)
        elif entry.suffix.lower() in SUFFIXES and not entry.name.startswith("."):
            yield entry


def predict_files(
    network: Trained, files: Sequence[epath.Path], batch_size: int
) -> Iterator[tuple[epath.Path, np.ndarray | str]]:
    """For each file its probabilities, float32 [classes], or why it cannot be read."""
    size = min(batch_size, len(files))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(files), size):
            some = files[start : start + size]
            decoded = list(threads.map(lambda file: _decode(network, file), some))
            good = [image for image in decoded if isinstance(image, np.ndarray)]
            rows = iter(network.predict_decoded(np.stack(good), size) if good else [])
            for file, image in zip(some, decoded, strict=True):
                yield file, image if isinstance(image, str) else next(rows)


def _decode(network: Trained, file: epath.Path) -> np.ndarray | str:
    try:
        return network.decode(file)
    except BadImageError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return error.strerror or str(error)


def _best(row: np.ndarray, network: Trained, top: int) -> list[dict[str, object]]:
    return [
        {"class": network.class_names[i], "index": int(i), "probability": float(row[i])}
        for i in np.argsort(-row, kind="stable")[:top]
    ]


def _as_text(file: epath.Path, best: list[dict[str, object]]) -> str:
    return "  ".join([str(file), *(f"{b['class']} {b['probability']:.2%}" for b in best)])


def main(arguments: list[str] | None = None) -> None:
    """Predicts what the command line names."""
    parser = argparse.ArgumentParser(prog="rattn_jax.predict", description=__doc__.split("\n")[0])
    add_workdir(parser)
    parser.add_argument("image", nargs="+", help="files, and folders of images")
    parser.add_argument("--top", type=positive, default=5, help="classes to name (5)")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at a time (64)")
    options = parser.parse_args(arguments)
    with errors_on_one_line(_PROGRAM):
        files = find_images(options.image)
        network = load(options.workdir)
    num_bad = 0
    for file, found in predict_files(network, files, options.batch_size):
        if isinstance(found, str):
            num_bad += 1
            say(_PROGRAM, f"{file} cannot be read: {found}")
            continue
        best = _best(found, network, options.top)
        line = (
            json.dumps({"image": str(file), "predictions": best})
            if options.json
            else _as_text(file, best)
        )
        print(line, flush=True)
    if num_bad:
        sys.exit(BAD_USAGE if num_bad == len(files) else FAILED)


if __name__ == "__main__":
    main()
