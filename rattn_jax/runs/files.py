"""Files and folders on this machine or in an object store, such as gs://bucket/run."""

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path is in an object store, where files are written whole or not at all."""
    return "://" in str(epath.Path(path))


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root on, `~` spelled out; epath's own `absolute` is for local ones."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().absolute()


def replace_text(path: epath.Path, text: str) -> None:
    """Writes a whole file or, if the process dies meanwhile, leaves the old one as it was."""
    replace_bytes(path, text.encode(errors="backslashreplace"))  # of names that are no UTF-8


def replace_bytes(path: epath.Path, data: bytes) -> None:
    """As `replace_text`, of bytes."""
    temporary = path.parent / f"{path.name}.new"
    temporary.write_bytes(data)
    temporary.replace(path)
