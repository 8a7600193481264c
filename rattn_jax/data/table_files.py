"""Reads tables: CSV and TSV, JSON lines, parquet and Arrow files.

table = read_table(epath.Path("labels.csv"))
table.columns             # ("file_name", "label")
table.values("label")     # ["cat", "dog", ...]
table.place(0)            # "line 2 of labels.csv"
"""

import csv
import io
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from etils import epath
from pyarrow import ipc, parquet

from rattn_jax.errors import UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow")
CACHE_BYTES = 2**30  # of images of parquet files that are kept in memory


class Table(Protocol):
    """The rows of a file.

    Attributes:
        file: where it is.
        columns: names of the columns.
    """

    file: epath.Path
    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def values(self, column: str) -> Sequence[Any]:
        """The values of a column."""
        ...

    def place(self, row: int) -> str:
        """Says where a row is, for messages."""
        ...

    def class_names(self, column: str) -> Sequence[str] | None:
        """Names of the classes that the numbers of a column stand for, where the file has them."""
        ...


def read_table(file: epath.Path) -> Table:
    """Reads a table; of parquet and Arrow files what it is asked for, when it is.

    Raises:
        UsageError: the file cannot be read, is damaged, or has two columns of one name.
    """
    suffix = file.suffix.lower()
    with _reading(file):
        if suffix in (".parquet", ".arrow"):
            return ArrowTable(file)
        return _read_json_lines(file) if suffix in (".jsonl", ".ndjson") else _read_csv(file)


def _check_columns(names: Sequence[str]) -> None:
    """Raises ValueError if two columns have one name; those without any are not read."""
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"it has {twice[0]!r} twice as the name of a column")


@contextmanager
def _reading(file: epath.Path) -> Iterator[None]:
    """Has what can go wrong with a file end in a UsageError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UsageError(f"{file} cannot be read ({reason}): allow it, or correct it") from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{file} is damaged ({reason}): correct it") from error


class TextTable:
    """A table in memory. See `Table`.

    Args:
        file: where it is.
        columns: names of the columns.
        rows: the values of each row.
        lines: numbers of their lines, from 1.
    """

    def __init__(
        self,
        file: epath.Path,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        lines: Sequence[int],
    ) -> None:
        self.file, self.columns, self._rows, self._lines = file, tuple(columns), rows, lines

    def __len__(self) -> int:
        return len(self._rows)

    def values(self, column: str) -> Sequence[Any]:
        """See `Table`."""
        return [row.get(column) for row in self._rows]

    def place(self, row: int) -> str:
        """See `Table`."""
        return f"line {self._lines[row]} of {self.file}"

    def class_names(self, column: str) -> Sequence[str] | None:
        """See `Table`: text has none."""
        return None


class ArrowTable:
    """A parquet file, or an Arrow file of `datasets`, which may hold images. See `Table`.

    Rows of an Arrow file are read where they lie. A parquet file is compressed in groups of rows,
    of which the last ones used are kept.
    """

    def __init__(self, file: epath.Path) -> None:
        self.file = file
        source = pa.memory_map(str(file)) if "://" not in str(file) else file.open("rb")
        if file.suffix.lower() == ".parquet":
            self._parquet = parquet.ParquetFile(source)
            self._schema = self._parquet.schema_arrow
            groups = range(self._parquet.num_row_groups)
            sizes = [self._parquet.metadata.row_group(i).num_rows for i in groups]
        else:
            self._parquet = None
            self._schema, self._batches = _read_batches(source)
            sizes = [batch.num_rows for batch in self._batches]
        self._ends = np.cumsum(sizes)
        self.columns = tuple(self._schema.names)
        _check_columns(self.columns)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def values(self, column: str) -> Sequence[Any]:
        """See `Table`."""
        with _reading(self.file):
            return self._read(column).to_pylist()

    def place(self, row: int) -> str:
        """See `Table`."""
        return f"row {row} of {self.file}"

    def class_names(self, column: str) -> Sequence[str] | None:
        """See `Table`: what `datasets` writes for a ClassLabel."""
        feature = self._features.get(column)
        if isinstance(feature, list):  # of images of several classes
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, dict) else None
        return [str(name) for name in names] if names else None

    def holds_images(self, column: str) -> bool:
        """Whether a column has images instead of paths: bytes, or `datasets`' bytes and path."""
        kind = self._schema.field(column).type
        if pa.types.is_struct(kind):
            return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def image_paths(self, column: str) -> Sequence[str | None]:
        """The paths that images had before they came into the file, without reading the images."""
        if not pa.types.is_struct(self._schema.field(column).type):
            return [None] * len(self)
        with _reading(self.file):
            if self._parquet is not None:
                found = self._parquet.read(columns=[f"{column}.path"]).column(column)
            else:
                found = self._read(column)
            return [value for chunk in found.chunks for value in chunk.field("path").to_pylist()]

    def image(self, column: str, row: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path of an image; either may be None."""
        chunk = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[chunk - 1]) if chunk else 0
        value = self._chunk(column, chunk)[row - start].as_py()
        return (value["bytes"], value["path"]) if isinstance(value, dict) else (value, None)

    def _chunk(self, column: str, number: int) -> Any:
        if self._parquet is None:
            return self._batches[number].column(column)

        def read() -> Any:
            return self._parquet.read_row_group(number, columns=[column]).column(column)

        return _CACHE.get((str(self.file), self._parquet, column, number), read)

    def _read(self, column: str) -> Any:
        if self._parquet is not None:
            return self._parquet.read(columns=[column]).column(column)
        kind = self._schema.field(column).type
        return pa.chunked_array([batch.column(column) for batch in self._batches], kind)

    @cached_property
    def _features(self) -> Mapping[str, Any]:
        text = (self._schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            return dict(json.loads(text)["info"]["features"])
        except (ValueError, KeyError, TypeError):
            return {}


class _Cache:
    """Keeps groups of rows, the last ones used, up to a number of bytes.

    Args:
        max_bytes: of all that is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes, self._lock = max_bytes, 0, Lock()
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, read: Callable[[], Any]) -> Any:
        """What is kept under a key, or what `read` gives. One thread reads at a time."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            self._kept[key] = found = read()
            self._num_bytes += found.nbytes
            while self._num_bytes > self._max_bytes and len(self._kept) > 1:
                self._num_bytes -= self._kept.popitem(last=False)[1].nbytes
            return found


_CACHE = _Cache(CACHE_BYTES)


def _read_batches(source: Any) -> tuple[Any, list[Any]]:
    """Schema and batches of an Arrow file, which `datasets` writes as a stream."""
    try:
        reader = ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        file = ipc.open_file(source)
        return file.schema, [file.get_batch(i) for i in range(file.num_record_batches)]
    return reader.schema, list(reader)


def _read_csv(file: epath.Path) -> TextTable:
    """The first line names the columns; a comma, semicolon or tab is between them."""
    text = _decode(file)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [name.strip() for name in next(reader, [])]
    _check_columns(columns)
    rows, numbers = [], []
    for values in reader:
        if not values:
            continue
        if len(values) != len(columns):
            raise ValueError(
                f"line {reader.line_num} has {len(values)} values for {len(columns)} columns"
            )
        rows.append(dict(zip(columns, values, strict=True)))
        numbers.append(reader.line_num)
    return TextTable(file, columns, rows, numbers)


def _read_json_lines(file: epath.Path) -> TextTable:
    rows, numbers = [], []
    for number, line in enumerate(_decode(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        rows.append(row)
        numbers.append(number)
    columns = dict.fromkeys(key for row in rows for key in row)
    return TextTable(file, list(columns), rows, numbers)


def _decode(file: epath.Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8: save it as UTF-8") from None
