"""Writes predictions as text, JSON, CSV or Parquet, one after the other.

with open_output("csv", "photos.csv") as stream:
    write("csv", rows, stream, top=5)

A row is the name of an image and what `Classifier.most_probable` says of it. In tables its columns
are image, class_1, index_1, probability_1, class_2, ...
"""

import csv
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from rattn_jax.config.paths import path_of
from rattn_jax.errors import UsageError
from rattn_jax.runs.files import replacing

Row = tuple[str, list[dict[str, Any]]]

_ROWS_AT_ONCE = 10_000  # of a Parquet file


@contextmanager
def open_output(kind: str, path: str | None) -> Iterator[TextIO]:
    """A stream to a file, see `replacing`; None is standard output.

    Args:
        kind: one of `FORMATS`.
        path: the file.

    Raises:
        UsageError: the file cannot be written, or the format is not for a terminal.
    """
    if kind == "parquet":
        _check_parquet(path)
    if path is None:
        yield sys.stdout
        return
    with ExitStack() as stack:
        try:
            binary = stack.enter_context(replacing(path_of(path)))
        except IsADirectoryError as error:
            raise UsageError(f"--out={path} is a folder: name a file in it") from error
        except OSError as error:
            raise UsageError(
                f"--out={path} cannot be written ({error.strerror}): choose another file"
            ) from error
        # Names of files may not be UTF-8.
        yield stack.enter_context(
            io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="\n")
        )


def write(kind: str, rows: Iterable[Row], stream: TextIO, top: int) -> None:
    """Writes all rows.

    Args:
        kind: one of `FORMATS`.
        rows: name and predictions of each image.
        stream: where to.
        top: number of predictions in each row.
    """
    FORMATS[kind](rows, stream, top)


def _check_parquet(path: str | None) -> None:
    if path is None and sys.stdout.isatty():
        raise UsageError("--format=parquet is not for a terminal: give --out=FILE")


def _write_text(rows: Iterable[Row], stream: TextIO, top: int) -> None:
    for name, best in rows:
        parts = [name, *(f"{b['class']} {b['probability']:.2%}" for b in best)]
        print("  ".join(parts).replace("\n", "\\n"), file=stream, flush=True)


def _write_json_lines(rows: Iterable[Row], stream: TextIO, top: int) -> None:
    for name, best in rows:
        print(json.dumps({"image": name, "predictions": best}), file=stream, flush=True)


def _write_json(rows: Iterable[Row], stream: TextIO, top: int) -> None:
    separator = "["
    for name, best in rows:
        print(separator, json.dumps({"image": name, "predictions": best}), sep="\n", file=stream)
        separator = ","
    print("[]" if separator == "[" else "]", file=stream)


def _write_csv(rows: Iterable[Row], stream: TextIO, top: int) -> None:
    table = csv.DictWriter(stream, list(_columns(top)), lineterminator="\n")
    table.writeheader()
    for name, best in rows:
        cells = _cells((name, best))
        table.writerow(
            {  # a carriage return, which csv may not quote
                key: cell.replace("\r", "\\r") if isinstance(cell, str) else cell
                for key, cell in cells.items()
            }
        )


def _write_parquet(rows: Iterable[Row], stream: TextIO, top: int) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float32()}
    schema = pyarrow.schema({name: types[kind] for name, kind in _columns(top).items()})
    cells = map(_cells, rows)
    with parquet.ParquetWriter(stream.buffer, schema) as table:
        while some := list(itertools.islice(cells, _ROWS_AT_ONCE)):
            table.write_table(pyarrow.Table.from_pylist(some, schema))


FORMATS: Mapping[str, Callable[[Iterable[Row], TextIO, int], None]] = {
    "text": _write_text,
    "jsonl": _write_json_lines,
    "json": _write_json,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def _columns(top: int) -> dict[str, type]:
    kinds = {"class": str, "index": int, "probability": float}
    numbered = {f"{key}_{i}": kind for i in range(1, top + 1) for key, kind in kinds.items()}
    return {"image": str, **numbered}


def _cells(row: Row) -> dict[str, Any]:
    name, best = row
    numbered = {f"{key}_{i}": value for i, b in enumerate(best, 1) for key, value in b.items()}
    cells = {"image": name, **numbered}
    return {
        key: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for key, value in cells.items()
    }
