"""Prints the most probable classes of images.

    rattn predict --workdir=runs/mine photo.jpg folder/ --top=5
    find photos -name '*.jpg' | rattn predict --workdir=runs/mine - --format=csv --out=photos.csv

Images are decoded and cropped as in evaluation. They are given as files; as folders; as patterns in
quotes, such as "photos/**/*.jpg"; as `-`, standard input, which is an image or a list of paths, one
a line; and, with --urls, as addresses of http(s), of 10 MB and 25 million pixels at most, a JPEG
file of 100 scans. Addresses of your own network are fetched, too: take care with lists of others.

The output has a row per image, in the order of the command line and in alphabetical order within
folders; --out is written as a whole or not at all. Images that cannot be read are reported on
stderr. Exit status: 0 all predicted, 1 some could not be read, 2 bad usage, or none could be read.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from rattn_jax.cli import (
    BAD_USAGE,
    FAILED,
    Parser,
    add_workdir,
    errors_on_one_line,
    positive,
    working,
)
from rattn_jax.data.image_files import LeftOut
from rattn_jax.inference.download import MAX_SECONDS
from rattn_jax.inference.image_inputs import find_inputs
from rattn_jax.inference.network import load
from rattn_jax.inference.prediction_table import FORMATS, Row, open_output, write
from rattn_jax.inference.stream import predict_each


def main(arguments: Sequence[str] | None = None) -> None:
    """Predicts what the command line names."""
    add_workdir(parser := Parser("rattn predict", __doc__))
    parser.add_argument("image", nargs="+", help="files, folders, patterns, URLs, or -")
    parser.add_argument("--top", type=positive, default=5, help="classes to name (5)")
    parser.add_argument("--format", choices=list(FORMATS), default="text", help="(text)")
    parser.add_argument("--json", action="store_const", const="jsonl", dest="format")
    parser.add_argument("--out", metavar="FILE", help="the file to write (standard output)")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at a time (64)")
    parser.add_argument("--urls", action="store_true", help="fetch images from http(s) addresses")
    parser.add_argument("--url-seconds", type=_seconds, default=10, help="for each of them (10)")
    options = parser.parse(arguments)
    with (
        errors_on_one_line(parser.prog),
        open_output(options.format, options.out) as stream,
        working("looking for images") as console,
    ):
        left_out = LeftOut()
        seconds = options.url_seconds if options.urls else None
        inputs = find_inputs(options.image, left_out, stdin=sys.stdin, url_seconds=seconds)
        but = f", {left_out}" if left_out else ""
        if [image.name for image in inputs] != options.image:
            console.say(f"{parser.prog}: {len(inputs):,} images{but}")
        console.enter("reading the run")
        network = load(options.workdir, options.step)
        num_bad = 0

        def rows() -> Iterator[Row]:
            nonlocal num_bad
            found = predict_each(network, inputs, batch_size=options.batch_size)
            for number, (name, row) in enumerate(found, start=1):
                console.enter("predicting", f"{number:,} of {len(inputs):,} done")
                if isinstance(row, str):
                    num_bad += 1
                    shown = name.replace("\n", "\\n")
                    console.say(f"{parser.prog}: {shown} cannot be read: {row}")
                else:
                    yield name, network.most_probable(row, options.top)

        write(options.format, rows(), stream, min(options.top, len(network.class_names)))
    if num_bad:
        sys.exit(BAD_USAGE if num_bad == len(inputs) else FAILED)


def _seconds(text: str) -> int:
    if positive(text) > MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: must be at most {MAX_SECONDS}")
    return int(text)


if __name__ == "__main__":
    main()
