"""Locks the folder of a run, so that no two processes train in it.

with lock_run_folder(folder, console.say):
    ...
"""

import contextlib
import errno
import fcntl
from collections.abc import Callable, Generator
from typing import IO

from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.files import is_remote

# The errors of file systems without locks: some of networks and of containers.
_NO_LOCKS = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.ENOTTY, errno.EOPNOTSUPP}
)


@contextlib.contextmanager
def lock_run_folder(folder: epath.Path, say: Callable[[str], None]) -> Generator[None]:
    """Locks the folder against other training processes while the block runs.

    The lock ends with the process, even if it is killed. Object stores and some file systems have
    no locks: `say` is then called with a line, and the block runs without one. A file that stands
    for a lock would be left by a killed process, and nobody could say whether it still runs.

    Raises:
        UsageError: another process is training there, or the lock is a file of another user.
    """
    if not is_main_process():
        yield
        return
    if is_remote(folder):
        say(f"{folder} is in an object store, without locks: make sure that no other run is there")
        yield
        return
    with _open(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # the latter of network file systems
            raise UsageError(
                f"workdir {folder} is in use by another process: wait for it, or choose another "
                "workdir"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            say(
                f"the file system of {folder} has no locks ({error.strerror}): make sure that no "
                "other process trains there"
            )
        yield


def _open(path: epath.Path) -> IO[str]:
    try:
        return path.open("w")
    except PermissionError as error:
        raise UsageError(
            f"{path} cannot be opened ({error.strerror}): if no other user trains there, remove "
            "it; otherwise choose another workdir"
        ) from error
