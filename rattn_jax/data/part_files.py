"""Finds the files of each part where a file holds many examples: tables, and shards.

found = find_parts("photos/train-{000..009}.tar", [".tar"], "shard")
found.train          # [photos/train-000.tar, ...]
found.tests          # [[photos/test-000.tar, ...]]
"""

import glob
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.data.image_files import entries_of, is_hidden
from rattn_jax.data.image_layout import TEST, TRAIN, VALIDATION, list_names, part_of, part_of_file
from rattn_jax.errors import UsageError

_DATA = "data"  # the folder of the parquet files in a folder of Hugging Face
METADATA = "metadata"  # how the table in a folder of images is called there
_MANY = frozenset({".parquet", ".arrow", ".tar"})  # kinds of which several files are one part
_CACHED = "cache-"  # how files begin that `datasets` has computed from others


class PartFiles(NamedTuple):
    """The files of the parts.

    Attributes:
        root: the folder that they are in.
        train: files of the training part.
        tests: files of the test part and of the validation part, as far as there are any.
        notes: lines for the user on files that are not read.
    """

    root: epath.Path
    train: Sequence[epath.Path]
    tests: Sequence[Sequence[epath.Path]]
    notes: tuple[str, ...]


def find_parts(place: str, suffixes: Collection[str], kind: str) -> PartFiles:
    """Finds the files of each part.

    The part is a word of a file's name, or the name of its folder. Of a file or files whose names
    say that they are the training part, the test part is beside them.

    Args:
        place: a folder; a file; or several, as "train-{000..009}.tar" or "train-*.tar".
        suffixes: of the files.
        kind: what they are, for messages.

    Raises:
        UsageError: there is no such file, or it is not clear which ones are meant.
    """
    path = path_of(place)
    if path.is_dir():
        root, given = path, list_files(path, suffixes)
        if not given:
            raise UsageError(
                f"{path} has no {kind}: must hold files {', '.join(sorted(suffixes))}; correct the "
                "path"
            )
    else:
        given = _expand(path)
        above = given[0].parents
        root = next(folder for folder in above if all(f.is_relative_to(folder) for f in given))
    by_part = _by_part(given, root)
    if not path.is_dir() and len(by_part) == 1:
        (part,) = by_part
        beside = _by_part(list_files(root, suffixes), root) if part == TRAIN else {}
        by_part = beside | {TRAIN: given}
        by_part.pop(None, None)
    return _choose(root, by_part, kind)


def tell_apart(names: Sequence[str | None], places: Iterable[str]) -> list[str]:
    """Different names of examples, by which they are held out.

    One keeps its own name, which stays when it moves to another file, unless others have the same.

    Args:
        names: of the examples; None if unknown.
        places: of the examples, with the files that they are in: what those are called whose name
            is unknown, or not theirs alone.
    """
    counts = Counter(names)
    return [
        place if name is None or counts[name] > 1 else name
        for name, place in zip(names, places, strict=True)
    ]


def list_files(folder: epath.Path, suffixes: Collection[str]) -> list[epath.Path]:
    """The files of these kinds in a folder, in its folder "data" and in folders of the parts.

    Of tables those called "metadata" alone, if there are any.
    """
    found: list[epath.Path] = []
    folders = [folder]
    while folders:
        here = folders.pop(0)
        for entry in entries_of(here):
            if is_hidden(entry) or entry.name.startswith(_CACHED):
                continue
            if entry.suffix.lower() in suffixes and not entry.is_dir():
                found.append(entry)
            elif here in (folder, folder / _DATA) and (entry.name == _DATA or part_of(entry.name)):
                folders += [entry] if entry.is_dir() else []
    return [file for file in found if file.stem == METADATA] or found


def _by_part(files: Sequence[epath.Path], root: epath.Path) -> dict[str | None, list[epath.Path]]:
    parts: dict[str | None, list[epath.Path]] = {}
    for file in files:
        part = part_of_file(file.stem) or (
            part_of(file.parent.name) if file.parent != root else None
        )
        parts.setdefault(part, []).append(file)
    return parts


def _choose(root: epath.Path, by_part: dict[str | None, list[epath.Path]], kind: str) -> PartFiles:
    """The training part and the others; files of no part are the training part if all are."""
    rest = by_part.pop(None, [])
    if not by_part:
        by_part, rest = {TRAIN: rest}, []
    if TRAIN not in by_part:
        names = list_names(file.name for files in by_part.values() for file in files)
        raise UsageError(f"{root} has {names} and no {kind} called train: add it, or rename one")
    for files in by_part.values():
        kinds = {file.suffix.lower() for file in files}
        if len(kinds) > 1 or (len(files) > 1 and not kinds <= _MANY):
            raise UsageError(
                f"{root} has {list_names(file.name for file in files)}, of which only one can be "
                "meant: name it"
            )
    tests = [by_part[part] for part in (TEST, VALIDATION) if part in by_part]
    notes = [f"{kind}s that are not read: {list_names(file.name for file in rest)}"] if rest else []
    return PartFiles(root, by_part[TRAIN], tests, tuple(notes))


def _expand(path: epath.Path) -> list[epath.Path]:
    """The files that a pattern names."""
    if path.exists():
        return [path]
    if path.parent.is_dir():  # of which every character means itself
        paths = [path.parent / name for name in _expand_braces(path.name)]
    else:
        paths = [epath.Path(text) for text in _expand_braces(str(path))]
    if any(mark in path.name for mark in "*?["):
        paths = sorted(file for each in paths for file in _matching(each))
    lacking = [file for file in paths if not file.exists()]
    if lacking or not paths:
        name = lacking[0] if lacking else path
        of = f" ({len(lacking)} of {len(paths)} are missing)" if len(paths) > 1 else ""
        raise UsageError(f"{name}: there is no such file or folder{of}; correct the path")
    return paths


def _matching(path: epath.Path) -> Iterable[epath.Path]:
    """The files that match a path whose name is a pattern."""
    if "://" in str(path):
        return path.parent.glob(path.name)
    # epath would take those of the folder's name for a pattern, too.
    return (path.parent / name for name in glob.glob(path.name, root_dir=path.parent))


def _expand_braces(text: str) -> list[str]:
    """The texts that one with {000..009} or {a,b} stands for."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", text)
    if match is None:
        return [text]
    first, last, listed = match.groups()
    if listed is None:
        width = len(first) if first.startswith("0") else 0
        choices = [str(n).zfill(width) for n in range(int(first), int(last) + 1)]
    else:
        choices = listed.split(",")
    start, end = text[: match.start()], text[match.end() :]
    return list(
        itertools.chain.from_iterable(_expand_braces(start + choice + end) for choice in choices)
    )
