"""What the programs of the package share: options, errors on one line, tables."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rattn_jax.errors import DataError, SaveError, UsageError

FAILED, BAD_USAGE = 1, 2  # exit statuses, those of main.py


@contextmanager
def errors_on_one_line(program: str) -> Iterator[None]:
    """Ends the process with a line and a status where an error of `errors.py` is raised."""
    try:
        yield
    except UsageError as error:
        say(program, error)
        sys.exit(BAD_USAGE)
    except (DataError, SaveError) as error:
        say(program, error)
        sys.exit(FAILED)


def say(program: str, message: object) -> None:
    """A line on stderr."""
    print(f"{program}: {message}", file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """The type of an option that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: must be at least 1")
    return value


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """The option that names a run."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of a trained run")


def align(rows: list[list[str]]) -> str:
    """Rows as aligned columns, the first to the left; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
