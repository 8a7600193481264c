"""Reads your own images and their classes from a table, as CSV, JSON lines, parquet or Arrow.

photos/labels.csv:    file_name,label              paths are relative to the folder of the table
                      cat/1.jpg,cat
photos/train.csv      the parts in files of their own, or in a column "split"
photos/test.csv
photos/data/train-00000-of-00001.parquet           what `datasets` writes, with the images in it
photos/train/metadata.csv, photos/train/1.jpg      its "imagefolder"

`part_files.py` finds the files of the parts.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np

from rattn_jax.data.dataset import Example, FileSource, Parts
from rattn_jax.data.image_layout import TEST, TRAIN, VALIDATION, part_of
from rattn_jax.data.labels import (
    Classes,
    Columns,
    Labels,
    find_column,
    first_labelled,
    need_column,
    number_classes,
)
from rattn_jax.data.part_files import PartFiles, find_parts, tell_apart
from rattn_jax.data.table_files import CACHE_BYTES, SUFFIXES, ArrowTable, Table, read_table
from rattn_jax.errors import UsageError


class _Rows:
    """Rows of some tables.

    Args:
        tables: the tables.
        where: table and row of each, int64 [N, 2]; None takes all.
    """

    def __init__(self, tables: Sequence[Table], where: np.ndarray | None = None) -> None:
        if where is None:
            numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
            rows = [np.arange(len(table)) for table in tables]
            where = np.stack([numbers, np.concatenate(rows)], axis=1)
        self.tables, self.where = tables, where

    def __len__(self) -> int:
        return len(self.where)

    @property
    def file(self) -> str:
        """The first of the files."""
        return str(self.tables[0].file)

    def only(self, chosen: np.ndarray) -> "_Rows":
        """Some of the rows, by their positions."""
        return _Rows(self.tables, self.where[chosen])

    def columns(self) -> tuple[str, ...]:
        """The columns that all tables have."""
        first, *others = (table.columns for table in self.tables)
        return tuple(name for name in first if all(name in other for other in others))

    def values(self, column: str) -> list[Any]:
        """The values of a column."""
        columns = [table.values(column) for table in self.tables]
        return [columns[number][row] for number, row in self.where.tolist()]

    def place(self, position: int) -> str:
        """Says where a row is, for messages."""
        number, row = self.where[position]
        return self.tables[number].place(int(row))


def open_table(path: str, columns: Columns) -> Parts:
    """Lists the images of a table.

    Args:
        path: the table; several, as "train-{00..09}.parquet"; or the folder that they are in.
        columns: names of the columns.

    Raises:
        UsageError: no such file, or one that is damaged; no such column; an image without a label,
            or that is not there, or has two rows; fewer than two classes, or one of which there are
            no training images.
    """
    found = find_parts(path, SUFFIXES, "table")
    train = _Rows([read_table(file) for file in found.train])
    if not len(train):
        raise UsageError(f"{train.file} has no rows: add images, or name another table")
    image = _image_column(train, columns)
    label = need_column("label", train.columns(), columns.label, train.file)
    tests = [_Rows([read_table(file) for file in files]) for files in found.tests]
    notes = list(found.notes)
    if not tests or columns.split:
        train, tests = _split(train, image, columns, notes)
    labels = partial(_labels, column=label, separator=columns.separator)
    candidates = [
        (rows, labels(rows) if {image, label} <= {*rows.columns()} else None, rows.file)
        for rows in filter(len, tests)
    ]
    test = first_labelled(candidates, notes)
    classes = number_classes(labels(train), labels(test) if test else None)
    notes += classes.notes
    if _holds_images(train, image):
        return _with_images(found, train, test, image, classes, notes)
    return _with_paths(found, train, test, image, classes, notes)


def _image_column(rows: _Rows, columns: Columns) -> str:
    """The column that has the images or, if there is none, their paths."""
    with_images = [name for name in rows.columns() if _holds_images(rows, name)]
    if columns.image is None and len(with_images) == 1:
        return with_images[0]
    return need_column("image", rows.columns(), columns.image, rows.file)


def _holds_images(rows: _Rows, column: str) -> bool:
    table = rows.tables[0]
    return isinstance(table, ArrowTable) and table.holds_images(column)


def _labels(rows: _Rows, column: str, separator: str | None) -> Labels:
    names = rows.tables[0].class_names(column)
    return Labels(rows.values(column), rows.place, names, separator)


def _split(
    rows: _Rows, image: str, columns: Columns, notes: list[str]
) -> tuple[_Rows, list[_Rows]]:
    """The rows of the training part and of the others, by a column or by the folders of paths."""
    column = find_column("split", rows.columns(), columns.split, rows.file)
    if column is not None:
        values = rows.values(column)
        parts = [part_of(str(value).strip()) for value in values]
        if None in parts:
            unknown = parts.index(None)
            text = f"{rows.place(unknown)} has the {column} {values[unknown]!r}"
            if columns.split is not None:
                raise UsageError(f"{text}: must be train, test or validation; correct it")
            notes.append(f"column {column} is not read: {text}, which is no part")
            return rows, []
    elif _holds_images(rows, image):
        return rows, []
    else:
        tops = [PurePath(str(path)).parts[:1] for path in rows.values(image)]
        parts = [part_of(top[0]) if top else None for top in tops]
        if None in parts or TRAIN not in parts:
            return rows, []
    found = {part: rows.only(np.flatnonzero([p == part for p in parts])) for part in {*parts}}
    if TRAIN not in found:
        raise UsageError(
            f"{rows.file} has no row of the part train: must have one; correct {column}"
        )
    return found[TRAIN], [found[part] for part in (TEST, VALIDATION) if part in found]


def _with_paths(
    found: PartFiles,
    train: _Rows,
    test: _Rows | None,
    image: str,
    classes: Classes,
    notes: list[str],
) -> Parts:
    """The dataset where the table has paths: in the order of classes and paths, as a folder."""
    seen: dict[str, str] = {}
    files: dict[str, str] = {}
    sources, names, places = [], [], []
    for part, rows, labels in ((TRAIN, train, classes.train), (TEST, test, classes.test)):
        if rows is None or labels is None:
            continue
        paths = _check_paths(rows, image, seen)
        order = [i for _, _, i in sorted(zip(labels, paths, range(len(paths)), strict=True))]
        where = [rows.tables[number].file.parent for number in rows.where[:, 0]]
        images = [where[i] / paths[i] for i in order]
        names.append([paths[i] for i in order])
        places.append([f"{where[i].relative_to(found.root)}/{paths[i]}" for i in order])
        sources.append(FileSource(images, names[-1], labels[order]))
        classes_of = (classes.texts[label] for label in labels[order])
        keys = (f"{part}/{name}/{path}" for name, path in zip(classes_of, names[-1], strict=True))
        files |= dict(zip(keys, map(str, images), strict=True))
    train_source, *test_sources = sources
    return Parts(
        classes.class_names,
        train_source,
        test_sources[0] if test_sources else None,
        train_paths=tell_apart(names[0], places[0]),
        train_names=names[0],
        notes=tuple(notes),
        files=files,
        label_sets=classes.label_sets,
    )


def _check_paths(rows: _Rows, column: str, seen: dict[str, str]) -> list[str]:
    """The paths of the images, all different, of files that are there.

    Args:
        rows: the rows.
        column: the column of the paths.
        seen: the places of the paths in the rows before, to which these are added.
    """
    paths = [str(value).strip() if value is not None else "" for value in rows.values(column)]
    folders = [str(table.file.parent) for table in rows.tables]
    lacking, repeated = [], []
    for i, (path, number) in enumerate(zip(paths, rows.where[:, 0].tolist(), strict=True)):
        whole = _whole(folders[number], path)
        if not path:
            raise UsageError(f"{rows.place(i)} has no {column}: fill it in, or remove the row")
        if whole in seen:
            repeated.append(i)
        elif "://" not in folders[number] and not os.path.isfile(whole):
            lacking.append(i)
        seen.setdefault(whole, rows.place(i))
    if repeated:
        place, path = rows.place(repeated[0]), paths[repeated[0]]
        before = seen[_whole(folders[rows.where[repeated[0], 0]], path)]
        raise UsageError(
            f"{place} has {path!r} again, as {before}{_more(repeated)}: each image must have one "
            "row; remove the others"
        )
    if lacking:
        raise UsageError(
            f"{rows.place(lacking[0])} names {paths[lacking[0]]!r}, which is not there"
            f"{_more(lacking)}: paths must be relative to the folder of the table; correct them, "
            "or remove the rows"
        )
    return paths


def _whole(folder: str, path: str) -> str:
    """Where a path leads, in the shortest form; in an object store each is a name of its own."""
    whole = os.path.join(folder, path)
    return whole if "://" in folder else os.path.normpath(whole)


def _more(positions: Sequence[int]) -> str:
    return f" (and {len(positions) - 1:,} more)" if len(positions) > 1 else ""


def _with_images(
    found: PartFiles,
    train: _Rows,
    test: _Rows | None,
    image: str,
    classes: Classes,
    notes: list[str],
) -> Parts:
    """The dataset where the table has the images, in the order of the rows."""
    tables = [*train.tables, *(test.tables if test and test.tables is not train.tables else ())]
    compressed = [table.file for table in tables if table.file.suffix.lower() == ".parquet"]
    if sum(file.stat().length for file in compressed) > CACHE_BYTES:
        notes.append(
            "parquet files of this size are read slowly in random order, a group of rows at a "
            "time: shards, or what save_to_disk of datasets writes, are faster; with "
            "dataset.crop_files=False random crops come from images that are kept in memory, "
            "scaled down, if they fit there"
        )
    paths = _image_paths(train, image)
    files = [str(table.file.relative_to(found.root)) for table in train.tables]
    rows = (f"{files[number]}/{row}" for number, row in train.where.tolist())
    return Parts(
        classes.class_names,
        _Images(train, image, classes.train),
        _Images(test, image, classes.test) if test and classes.test is not None else None,
        train_paths=tell_apart(paths, rows),
        train_names=_names_before(train, paths),
        notes=tuple(notes),
        containers={str(t.file.relative_to(found.root)): str(t.file) for t in tables},
        label_sets=classes.label_sets,
    )


def _image_paths(rows: _Rows, image: str) -> list[str | None]:
    """The paths that the images had, where a table knows them."""
    paths = [table.image_paths(image) for table in rows.tables if isinstance(table, ArrowTable)]
    return [paths[number][row] for number, row in rows.where.tolist()]


def _names_before(rows: _Rows, paths: Sequence[str | None]) -> list[str]:
    """Names by which images in a table were held out before: if paths do not do, all by rows."""
    if None not in paths and len({*paths}) == len(paths):
        return [str(path) for path in paths]
    return [f"{rows.tables[number].file.name}/{row}" for number, row in rows.where.tolist()]


class _Images:
    """Images in tables. See `Source`.

    Args:
        rows: their rows.
        column: the column that has them.
        labels: their classes, int32 [N].
    """

    def __init__(self, rows: _Rows, column: str, labels: np.ndarray) -> None:
        self._rows, self._column, self._labels = rows, column, labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)  # which is what ends a loop over the source
        number, row = self._rows.where[position]
        table: Any = self._rows.tables[number]
        data, path = table.image(self._column, int(row))
        if data is None:
            data = (table.file.parent / path).read_bytes()
        label, path = int(self._labels[position]), path or ""
        place = f"{self.name(position)} {PurePath(path).name}".rstrip()
        return Example(position, place, path, data, label, label, upright=True)

    def name(self, position: int) -> str:
        """See `Source`."""
        number, row = self._rows.where[position]
        return f"{self._rows.tables[number].file}[{row}]"

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels
