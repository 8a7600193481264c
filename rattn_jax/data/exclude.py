"""Test images that do not count: the list of `dataset.test_exclude_file`.

excluded = exclusions("blacklist.txt", dataset.test)      # {"ILSVRC2012_val_00000036.JPEG", ...}
matching("n01440764/ILSVRC2012_val_00000036.JPEG", excluded)  # "ILSVRC2012_val_00000036.JPEG"
"""

from collections.abc import Mapping
from pathlib import PurePath

from absl import logging
from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.data.dataset import Source
from rattn_jax.errors import DataError, UsageError


def exclusions(file: epath.PathLike | None, source: Source) -> frozenset[str]:
    """The names in a list, and none without one.

    Args:
        file: see `read_exclude_file`.
        source: the test split, of which only as many examples are read as it takes to find one that
            counts.

    Raises:
        UsageError: the file cannot be read.
        DataError: it excludes all examples.
    """
    excluded = read_exclude_file(file) if file else frozenset()
    if excluded and all(_is_excluded(source, i, excluded) for i in range(len(source))):
        raise DataError(
            f"dataset.test_exclude_file={str(file)!r} excludes all {len(source)} test images: some "
            "must count; take their names out of it"
        )
    return excluded


def read_exclude_file(path: epath.PathLike) -> frozenset[str]:
    """Reads the names of test examples to exclude.

    Args:
        path: a text file in UTF-8 with one name a line: of a file, alone or with its folders in the
            dataset, as "cat/1.jpg"; or, as in ImageNet's development kit, one number n, which
            stands for ILSVRC2012_val_0000000n.JPEG.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        text = path_of(path).read_text()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"dataset.test_exclude_file={str(path)!r} cannot be read ({error}): must be a text "
            "file with one file name or number a line; correct the path"
        ) from error
    names: list[str] = []
    for line in map(str.strip, text.removeprefix("\ufeff").splitlines()):
        words = line.split()
        names += words if all(word.isdecimal() for word in words) else [line]
    return frozenset(f"ILSVRC2012_val_{int(n):08d}.JPEG" if n.isdecimal() else n for n in names)


def matching(path: str, excluded: frozenset[str]) -> str | None:
    """The name in the list that excludes an example; None if none does.

    Args:
        path: see `Example`.
        excluded: the names.
    """
    return next((name for name in (path, PurePath(path).name) if name in excluded), None)


def note_matches(excluded: frozenset[str], counts: Mapping[str, int]) -> None:
    """Says so if a list has names that no test example has, or several have.

    Args:
        excluded: the names.
        counts: numbers of examples that they exclude.
    """
    if unknown := sorted(name for name in excluded if not counts.get(name)):
        logging.warning(
            "dataset.test_exclude_file: no test image has the name %s%s: a line must have the name "
            "of a file, alone or as in class/name",
            unknown[0],
            _more(len(unknown)),
        )
    if shared := sorted(name for name in excluded if counts.get(name, 0) > 1):
        logging.warning(
            "dataset.test_exclude_file: %s%s is the name of %d test images, none of which counts: "
            "to exclude one of them, write class/name",
            shared[0],
            _more(len(shared)),
            counts[shared[0]],
        )


def _more(count: int) -> str:
    return f" (and {count - 1:,} more names)" if count > 1 else ""


def _is_excluded(source: Source, position: int, excluded: frozenset[str]) -> bool:
    try:
        return matching(source[position].path, excluded) is not None
    except Exception:  # readers raise many kinds of errors: evaluation says what is wrong
        return False
