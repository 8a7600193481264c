"""Files and folders on this machine or in an object store, such as gs://bucket/run."""

import errno
import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from etils import epath
from etils.epath.gpath import PosixGPath

from rattn_jax.config.paths import path_of
from rattn_jax.errors import UsageError


@epath.register_path_cls
class LocalPath(PosixGPath):
    """A path on this machine, of which every character means itself.

    epath takes brackets, stars and question marks in the names of folders for patterns, and Orbax
    looks by patterns for what it has written: without this class it would find nothing there.
    """

    def glob(self, pattern: str) -> Iterator["LocalPath"]:
        """The files and folders below this one that match."""
        return (self / name for name in glob.iglob(pattern, root_dir=self))


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path is in an object store, where writing a file is atomic."""
    return "://" in str(epath.Path(path))


def absolute(path: epath.PathLike) -> epath.Path:
    """The absolute path, with `~` expanded; epath's own `absolute` handles only local paths.

    Raises:
        UsageError: a URL of no object store, or a local path that epath takes for one in such a
            store.
    """
    text = os.fspath(path)
    place = path_of(text)
    if "://" in text:
        return place
    if not is_remote(place):
        place = place.absolute()
    if is_remote(place):
        raise UsageError(
            f"{text!r} is taken for {place}: choose a folder that does not begin like that, such "
            "as a link to it, or give the URL"
        )
    # TensorStore refuses a second slash at the beginning, which means nothing.
    return LocalPath(f"/{str(place).lstrip('/')}") if os.name == "posix" else place


def check_can_hold_checkpoints(folder: epath.Path) -> None:
    """Raises UsageError if TensorStore, which writes and reads the arrays, cannot use the folder.

    It takes text in UTF-8, in which it reads a backslash as a slash. What has "gs:/" within it is,
    for Orbax, in an object store.
    """
    text = folder.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        rule = "a name in UTF-8"
    else:
        if "\\" in text:
            rule = "a path without backslashes"
        elif "gs:/" in f"{text}/" and not is_remote(folder):
            rule = "a path without a name that ends in gs:"
        else:
            return
    raise UsageError(
        f"workdir {text} must be {rule}, because of TensorStore: choose another one, or rename it"
    )


def replace_text(path: epath.Path, text: str) -> None:
    """Replaces a file atomically: a killed process leaves the old one intact."""
    replace_bytes(path, text.encode(errors="backslashreplace"))  # names of files may not be UTF-8


def replace_bytes(path: epath.Path, data: bytes) -> None:
    """Like `replace_text`, for bytes."""
    with replacing(path) as stream:
        stream.write(data)


@contextmanager
def replacing(path: epath.Path) -> Iterator[BinaryIO]:
    """A stream to a file, which has its old content until all is written.

    Of a link, the file that it names is replaced. What is no regular file, such as a pipe or
    /dev/null, stays what it is and is written at once.

    Raises:
        IsADirectoryError: the path is a folder.
        OSError: it cannot be written.
    """
    final = path if is_remote(path) else _file_at(path)
    if final is None:
        with path.open("wb") as stream:
            yield stream
        return
    temporary = final.parent / f"{final.name}.new"
    stream = temporary.open("wb")
    try:
        with stream:
            yield stream
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _file_at(path: epath.Path) -> epath.Path | None:
    """The regular file that is at a local path or will be; None if something else is there.

    Raises:
        IsADirectoryError, OSError: see `replacing`.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Not of other kinds: the path of an open pipe, such as /dev/stdout, leads nowhere.
    return type(path)(os.path.realpath(path)) if stat.S_ISREG(mode) else None
