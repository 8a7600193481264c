"""Reads your own images from tar files of WebDataset, in any order.

photos/train-000.tar:    1.jpg  1.cls     an image, and its class: a number or a name
                         2.jpg  2.json    or {"label": "cat"}
photos/test-000.tar

The tar files are not unpacked: once, the headers of all members are read, and then an image where
it lies. `part_files.py` finds the files of the parts.
"""

import json
import os
import tarfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from rattn_jax.data.dataset import Example, Parts
from rattn_jax.data.image_files import SUFFIXES, LeftOut
from rattn_jax.data.labels import (
    Columns,
    Labels,
    find_column,
    first_labelled,
    number_classes,
)
from rattn_jax.data.part_files import PartFiles, find_parts, tell_apart
from rattn_jax.errors import UsageError

SUFFIX = ".tar"
_LABEL, _JSON = ".cls", ".json"
_BLOCK = 512  # bytes of a header


class Sample(NamedTuple):
    """An image in a shard.

    Attributes:
        name: of the image in the shard.
        offset: where its bytes begin.
        size: their number.
        label: what the shard has as its label, not yet a class; None if there is nothing.
    """

    name: str
    offset: int
    size: int
    label: Any


class _Part(NamedTuple):
    """The samples of a part, and the shard of each."""

    shards: Sequence[epath.Path]
    shard: np.ndarray  # int32 [N]
    samples: Sequence[Sample]

    def place(self, position: int) -> str:
        return f"{self.shards[self.shard[position]]}/{self.samples[position].name}"


def open_shards(path: str, columns: Columns) -> Parts:
    """Lists the images of shards, in the order in which they are stored.

    Args:
        path: a tar file; several, as "train-{000..009}.tar"; or the folder that they are in.
        columns: of which the name of the label in JSON, and the separator, are looked at.

    Raises:
        UsageError: no such file, or one that is damaged; an image without a label; fewer than two
            classes, or one of which there are no training images.
    """
    found = find_parts(path, [SUFFIX], "shard")
    left_out = LeftOut()
    train = _read_part(found.train, columns, left_out)
    notes = list(found.notes)
    labels = partial(_labels, separator=columns.separator)
    tests = [_read_part(files, columns, left_out) for files in found.tests]
    test = first_labelled(((p, labels(p), p.shards[0].name) for p in tests), notes)
    classes = number_classes(labels(train), labels(test) if test else None)
    shards = [*train.shards, *(test.shards if test else ())]
    return Parts(
        classes.class_names,
        _Images(train, classes.train),
        _Images(test, classes.test) if test and classes.test is not None else None,
        train_paths=_paths(train, found),
        train_names=[sample.name for sample in train.samples],
        notes=(*([str(left_out)] if left_out else []), *notes, *classes.notes),
        containers={str(file.relative_to(found.root)): str(file) for file in shards},
        label_sets=classes.label_sets,
    )


def _paths(part: _Part, found: PartFiles) -> list[str]:
    """Names of the samples of a part: those that several have with their shards'."""
    shards = [str(file.relative_to(found.root)) for file in part.shards]
    names = [sample.name for sample in part.samples]
    return tell_apart(
        names, (f"{shards[i]}/{name}" for i, name in zip(part.shard, names, strict=True))
    )


def _labels(part: _Part, separator: str | None) -> Labels:
    values = [sample.label for sample in part.samples]
    return Labels(values, part.place, separator=separator)


def _read_part(files: Sequence[epath.Path], columns: Columns, left_out: LeftOut) -> _Part:
    samples: list[Sample] = []
    shard: list[int] = []
    for number, file in enumerate(files):
        try:
            found, others = _read_index(file, _version(file), columns.label)
        except OSError as error:
            raise UsageError(
                f"shard {file} cannot be read ({error.strerror or error}): allow it, or correct it"
            ) from error
        for reason, name in others:
            left_out.add(reason, name)
        samples += found
        shard += [number] * len(found)
    if not samples:
        raise UsageError(
            f"{files[0]} has no images: must hold files as 1.jpg and 1.cls; name other shards"
        )
    return _Part(files, np.array(shard, np.int32), samples)


def _version(file: epath.Path) -> tuple[int, ...]:
    """Numbers that differ where a file was changed."""
    if "://" in str(file):
        stored = file.stat()
        return stored.length, stored.mtime
    local = os.stat(file)
    return local.st_ino, local.st_size, local.st_mtime_ns


class _Index(NamedTuple):
    """The members of a shard.

    Attributes:
        images: by their keys.
        labels: by their keys, as they are stored.
        others: what is neither, with the reason why it is not read.
    """

    images: dict[str, tarfile.TarInfo]
    labels: dict[str, Any]
    others: list[tuple[str, str]]


@lru_cache(maxsize=10_000)  # shards: a start opens its dataset several times
def _read_index(
    file: epath.Path, version: tuple[int, ...], column: str | None
) -> tuple[Sequence[Sample], Sequence[tuple[str, str]]]:
    """The images of a shard in the order in which they are stored, and what is left out and why.

    Args:
        file: the shard.
        version: of the file: the index of another one is another one.
        column: name of the label in JSON.
    """
    index = _Index({}, {}, [])
    with file.open("rb") as stream:
        try:
            # "r:" refuses what is compressed, in which nothing can be found without reading it all.
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    _add_member(index, tar, member, file, column)
                stream.seek(tar.offset)
                if stream.read(_BLOCK).strip(b"\0"):  # where tarfile takes damage for the end
                    raise tarfile.ReadError(f"no header of a member at byte {tar.offset}")
        except tarfile.TarError as error:
            raise UsageError(
                f"shard {file} is damaged, or compressed ({error}): unpack it with gunzip, or make "
                "it again"
            ) from error
    samples = [
        Sample(image.name, image.offset_data, image.size, index.labels.get(key))
        for key, image in index.images.items()
    ]
    without = [("without an image", key) for key in index.labels if key not in index.images]
    return samples, [*index.others, *without]


def _add_member(
    index: _Index,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    file: epath.Path,
    column: str | None,
) -> None:
    """Adds a member under its key: its path up to the first dot of its name."""
    path = PurePosixPath(member.name)
    name, dot, suffix = path.name.partition(".")
    key, suffix = str(path.parent / name), (dot + suffix).lower()
    if member.isdir():
        return
    if not name:
        index.others.append(("hidden", member.name))
    elif not member.isfile():
        index.others.append(("links", member.name))
    elif suffix in SUFFIXES:
        if key in index.images:
            raise UsageError(
                f"shard {file} has {index.images[key].name} and {member.name}: each sample must "
                "have one image; make the shard again"
            )
        index.images[key] = member
    elif suffix in (_LABEL, _JSON):
        text = tar.extractfile(member).read()  # type: ignore[union-attr]  # of a file it is one
        label = _read_label(text, suffix, f"{member.name} of {file}", column)
        if suffix == _LABEL or index.labels.get(key) is None:
            index.labels[key] = label
    else:
        index.others.append((suffix or "without suffix", member.name))


def _read_label(text: bytes, suffix: str, place: str, column: str | None) -> Any:
    """What a file of a shard has as label; None if it has none."""
    try:
        if suffix == _LABEL:
            return text.decode().strip()
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{place} is no text or no JSON ({error}): make it again") from error
    if not isinstance(values, dict):
        return values
    found = find_column("label", values, column, place)
    return found and values[found]


class _Images:
    """Images in shards. See `Source`.

    Args:
        part: the samples.
        labels: their classes, int32 [N].
    """

    def __init__(self, part: _Part, labels: np.ndarray) -> None:
        self._part, self._labels = part, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> Example:
        sample = self._part.samples[position]
        # A file of its own for each read, so that threads do not share a position in it.
        with self._part.shards[self._part.shard[position]].open("rb") as stream:
            stream.seek(sample.offset)
            data = stream.read(sample.size)
        label, name = int(self._labels[position]), self.name(position)
        return Example(position, name, sample.name, data, label, label, upright=True)

    def name(self, position: int) -> str:
        """See `Source`."""
        return self._part.place(position)

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels
