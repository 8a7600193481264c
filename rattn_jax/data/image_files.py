"""Finds image files by their suffixes, and counts what it leaves out.

left_out = LeftOut()
files = images_below(epath.Path("photos"), left_out)
print(left_out)          # left out 4: 3 .heic (such as a.heic), 1 hidden (such as .DS_Store)
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from etils import epath

from rattn_jax.data.decoding import FORMATS
from rattn_jax.errors import UsageError

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# Folders with which systems accompany one's own: thumbnails, attributes, deleted files.
_OF_SYSTEMS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"})
_MAX_REASONS = 6  # that a line names


class LeftOut:
    """Counts what is left out by reasons, with the first name of each as an example."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts a file or a folder; the reason follows a number, as in "3 hidden"."""
        self._counts[reason] += 1
        self._first.setdefault(reason, name)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        shown = self._counts.most_common(_MAX_REASONS)
        parts = [f"{count:,} {reason} (such as {self._first[reason]})" for reason, count in shown]
        others = self._counts.total() - sum(count for _, count in shown)
        parts += [f"{others:,} of other kinds"] if others else []
        return f"left out {self._counts.total():,}: {', '.join(parts)}"


def is_image(path: epath.Path) -> bool:
    """Whether a file is an image, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def is_hidden(path: epath.Path) -> bool:
    """Whether a file or a folder is hidden, or not of the user's making."""
    return path.name.startswith(".") or path.name in _OF_SYSTEMS


def entries_of(folder: epath.Path) -> list[epath.Path]:
    """What is in a folder, in alphabetical order.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if "://" in str(folder):
            return sorted(folder.iterdir())
        # epath leaves out names that end in ~.
        return sorted(folder / name for name in os.listdir(folder))
    except OSError as error:
        raise UsageError(
            f"folder {folder} cannot be read ({error.strerror}): allow it, or move it away"
        ) from error


def folders_among(entries: Sequence[epath.Path]) -> frozenset[str]:
    """Names of the folders, and of links to folders, among what is in one folder.

    What is called like an image is looked at, too, but not in an object store, where each look is a
    request.

    Args:
        entries: from `entries_of`.
    """
    if not entries:
        return frozenset()
    above = entries[0].parent
    if "://" in str(above):
        return frozenset(e.name for e in entries if not is_image(e) and e.is_dir())
    with os.scandir(above) as found:  # one call of the system for all of them, but for links
        return frozenset(entry.name for entry in found if _leads_to_folder(entry))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def images_below(folder: epath.Path, left_out: LeftOut) -> list[epath.Path]:
    """All images in a folder and in the folders below it, in alphabetical order of their paths.

    Links are followed, but no folder is read twice, and none above `folder`. A folder may be called
    like an image.

    Args:
        folder: local, or a URL.
        left_out: counts what is hidden, no image, or such a link.

    Raises:
        UsageError: a folder cannot be read.
    """
    top = folder
    seen = {real_path(top)}

    def below(folder: epath.Path) -> Iterator[epath.Path]:
        entries = entries_of(folder)
        folders = folders_among(entries)
        for entry in entries:
            if is_hidden(entry):
                left_out.add("hidden", entry.name)
            elif entry.name not in folders and is_image(entry):
                yield entry
            elif entry.name not in folders:
                left_out.add(entry.suffix.lower() or "without suffix", entry.name)
            elif leads_up(entry, top) or (real := real_path(entry)) in seen:
                left_out.add("linked to what is read already, or lies above", entry.name)
            else:
                seen.add(real)
                yield from below(entry)

    return list(below(folder))


def leads_up(folder: epath.Path, top: epath.Path) -> bool:
    """Whether a folder is a link to `top` or to a folder above it."""
    return PurePath(real_path(top)).is_relative_to(real_path(folder))


def real_path(folder: epath.Path) -> str:
    """The path without links; object stores have none."""
    return str(folder) if "://" in str(folder) else os.path.realpath(folder)


def find_images(paths: Sequence[str], left_out: LeftOut) -> list[epath.Path]:
    """Lists files: those given by name, and all images in given folders and below them.

    Args:
        paths: files and folders.
        left_out: see `images_below`.

    Raises:
        UsageError: there is no such file, or no image in a folder.
    """
    found: list[epath.Path] = []
    for path in map(epath.Path, paths):
        if path.is_dir():
            images = images_below(path, left_out)
            if not images:
                raise UsageError(no_image("folder", path, left_out))
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder; correct the path")
    return found


def no_image(kind: str, folder: epath.Path, left_out: LeftOut) -> str:
    """A line about a folder without images."""
    but = f" ({left_out})" if left_out else ""
    return (
        f"{kind} {folder} has no image{but}: must hold files of the formats {', '.join(FORMATS)} "
        "with their usual suffixes; add some, or leave the folder out"
    )
