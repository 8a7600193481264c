"""Paths of folders that may be on this machine or in an object store, such as gs://bucket/run."""

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path is in an object store, where files are written whole or not at all."""
    return "://" in str(epath.Path(path))


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root on, `~` spelled out; epath's own `absolute` is for local ones."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().absolute()
