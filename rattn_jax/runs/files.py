"""Files and folders on this machine or in an object store, such as gs://bucket/run."""

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path is in an object store, where writing a file is atomic."""
    return "://" in str(epath.Path(path))


def absolute(path: epath.PathLike) -> epath.Path:
    """The absolute path, with `~` expanded; epath's own `absolute` handles only local paths."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().absolute()


def replace_text(path: epath.Path, text: str) -> None:
    """Replaces a file atomically: a killed process leaves the old one intact."""
    replace_bytes(path, text.encode(errors="backslashreplace"))  # names of files may not be UTF-8


def replace_bytes(path: epath.Path, data: bytes) -> None:
    """Like `replace_text`, for bytes."""
    temporary = path.parent / f"{path.name}.new"
    temporary.write_bytes(data)
    temporary.replace(path)
