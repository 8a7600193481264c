"""What a dataset holds, wherever it lies: by this a run knows its data again.

contents = read_contents(dataset)      # {"train/cat/1.jpg": [48211, 2774081935, 98], ...}
changes(before, contents)              # "1 image of train/cat added, 3 images of test/dog changed"
"""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.dataset import Dataset, Source
from rattn_jax.data.exclude import read_exclude_file
from rattn_jax.data.label_noise import read_matrix

_WHOLE_BYTES = 2**28  # up to which all bytes are read, in 0.4 s from memory
_NUM_READ = 10_000  # files, or the ends of so many
_END = 4096  # bytes at the beginning and at the end of a file
_NUM_LABELS = 1_000  # of a split
_NUM_THREADS = 16
_SHOWN = 3  # classes in a message
_CONTAINER = "file "  # how names of files begin that hold many images

Contents = Mapping[str, Sequence[int]]


def read_contents(dataset: Dataset) -> Contents:
    """Numbers that differ where two datasets do, by the names of the files or of the splits.

    A folder of images has the size in bytes of each file, -1 if unknown; a CRC-32 of the first and
    last 4 KiB of each file, or of 10,000 that are evenly spread over the names if there are more;
    and one of all bytes, if there are at most 10,000 files and 256 MiB. In a larger folder a change
    that keeps the size of a file is not seen in the other files, nor far from the ends. In an
    object store, where each file would be a request, only names count. This takes under a second
    for 100,000 files, once the system has them in memory.

    Tables and shards that hold the images are files of which the same is known, and a CRC-32 of all
    labels. Other sets have the number of examples of each split and a CRC-32 of 1,000 labels,
    evenly spread: an example is known by its position and class, since the bytes of its image
    depend on who has prepared the set.
    """
    if dataset.files:
        return _read_files(list(dataset.files), list(dataset.files.values()))
    splits = {"train": dataset.train, "test": dataset.test}
    if dataset.containers:
        names = [_CONTAINER + name for name in dataset.containers]
        found = _read_files(names, list(dataset.containers.values()))
        sets = b"" if dataset.label_sets is None else dataset.label_sets.tobytes()
        labels = {
            name: zlib.crc32(split.labels().tobytes() + sets) for name, split in splits.items()
        }
        return {**found, **{name: [len(splits[name]), crc] for name, crc in labels.items()}}
    return {name: [len(split), _crc_of_labels(split)] for name, split in splits.items()}


def digest(contents: Contents) -> str:
    """A hash of the contents, 32 hexadecimal digits."""
    text = "".join(f"{name}\0{list(numbers)}\n" for name, numbers in contents.items())
    return _hash(text.encode(errors="surrogateescape"))


def describe_data(config: RunConfig, dataset: Dataset, contents: Contents) -> dict[str, object]:
    """What a run's config.json says of its data: classes, sizes, and hashes of what it is.

    Raises:
        UsageError: a file that belongs to the data cannot be read.
    """
    description = dataset.describe() | {"contents": digest(contents)}
    if file := config.dataset.test_exclude_file:
        names = "\n".join(sorted(read_exclude_file(file)))
        description["test_exclude_file"] = _hash(names.encode())
    if file := config.dataset.label_noise.matrix:
        matrix = read_matrix(file, dataset.num_classes)
        description["label_noise_matrix"] = _hash(matrix.tobytes())
    return description


def changes(before: Contents, now: Contents) -> str:
    """What has changed, class by class; "" if nothing has."""
    counts: Counter[tuple[str, str]] = Counter()
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            what = "added"
        elif name not in now:
            what = "removed"
        elif any(a != b for a, b in zip(before[name], now[name], strict=False)):
            what = "changed"
        else:
            continue
        is_image = "/" in name and not name.startswith(_CONTAINER)
        counts["/".join(name.split("/")[:2]) if is_image else name, what] += 1
    texts = [_count(count, group, what) for (group, what), count in counts.items()]
    more = [f"{counts.total()} in all"] if len(texts) > _SHOWN else []
    return ", ".join(texts[:_SHOWN] + more)


def _count(count: int, group: str, what: str) -> str:
    if group.startswith(_CONTAINER):
        return f"{group} {what}"
    if "/" not in group:
        return f"split {group} {what}"
    return f"{count} image{'s' * (count > 1)} of {group} {what}"


def _read_files(names: Sequence[str], paths: Sequence[str]) -> Contents:
    if "://" in paths[0]:
        return {name: [-1] for name in names}
    numbers: list[list[int]] = [[] for _ in paths]

    def add_sizes(positions: np.ndarray) -> None:
        for i in positions:
            numbers[i].append(_size(paths[i]))

    def add_checksums(positions: np.ndarray) -> None:
        for i in positions:
            numbers[i] += _checksums(paths[i], is_whole=is_whole)

    read = np.unique(np.linspace(0, len(paths) - 1, _NUM_READ).astype(int))
    with ThreadPoolExecutor(_NUM_THREADS) as threads:  # a task of many: files are quick to look at
        list(threads.map(add_sizes, np.array_split(range(len(paths)), _NUM_THREADS)))
        num_bytes = sum(size for (size,) in numbers)
        is_whole = len(paths) <= _NUM_READ and num_bytes <= _WHOLE_BYTES
        list(threads.map(add_checksums, np.array_split(read, _NUM_THREADS)))
    return dict(zip(names, numbers, strict=True))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nowhere: reading it says so
        return -1


def _checksums(path: str, *, is_whole: bool) -> list[int]:
    """CRC-32 of both ends of a file, and of the whole."""
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(_END)
            file.seek(max(file.seek(0, os.SEEK_END) - _END, 0))
            ends = zlib.crc32(file.read(_END), zlib.crc32(start))
            if not is_whole:
                return [ends]
            file.seek(0)
            return [ends, zlib.crc32(file.read())]
    except OSError:  # as above
        return []


def _crc_of_labels(source: Source) -> int:
    def label(position: int) -> int:
        try:
            return source[position].label
        except Exception:  # of many kinds: a damaged example, which training skips
            return -1

    positions = np.unique(np.linspace(0, len(source) - 1, _NUM_LABELS).astype(int))
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        labels = list(threads.map(label, positions))
    return zlib.crc32(np.array(labels, np.int32).tobytes())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
