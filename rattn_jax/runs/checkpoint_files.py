"""Reads checkpoints from disk and verifies their checksums; never writes.

    step, state_dict = read_newest(directory, print)

directory/STEP/state      the arrays
directory/STEP/record     their checksums and the config of the run, committed with them
"""

import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict

from rattn_jax.errors import DataError
from rattn_jax.runs.files import absolute

STATE_ITEM, RECORD_ITEM = "state", "record"
DAMAGED = "damaged-"  # how the name of a checkpoint begins that was moved out of the way
_UNFINISHED = ".orbax-checkpoint-tmp"
# How TensorStore, whose errors are all ValueError, tells of disks and of object stores.
_OF_THE_DISK = re.compile(
    r"os_error_code=|^(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED):"
)


def all_steps(directory: epath.PathLike) -> list[int]:
    """Steps of all finished checkpoints in ascending order, valid or not."""
    folder = epath.Path(directory)
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal() and not is_unfinished(path)
    )


def is_unfinished(path: epath.Path) -> bool:
    """Whether a folder is an unfinished save."""
    # In gs:// Orbax marks a finished folder with a file instead of renaming it.
    if str(path).startswith("gs://") and path.name.isdecimal():
        from orbax.checkpoint.utils import is_checkpoint_finalized

        return not is_checkpoint_finalized(path)
    return _UNFINISHED in path.name


def damaged_checkpoints(directory: epath.Path) -> list[epath.Path]:
    """Folders of the checkpoints that were found damaged, and renamed."""
    paths = directory.iterdir() if directory.is_dir() else ()
    return [path for path in paths if path.name.startswith(DAMAGED)]


def read_checkpoint(path: epath.PathLike) -> tuple[dict[str, Any], Any]:
    """Reads a checkpoint.

    Args:
        path: its folder.

    Returns:
        The state as nested dictionaries of NumPy arrays (`flax.serialization.to_state_dict`), and
        the record that was saved with it.

    Raises:
        Exception: the checkpoint is damaged; the type depends on the library that notices.
    """
    # It imports Orbax, which takes 0.3 s; folders of weights are read without.
    from rattn_jax.runs.whole_reads import read_arrays

    folder = absolute(path)
    saved = json.loads((folder / RECORD_ITEM / "metadata").read_text())
    state = read_arrays(folder / STATE_ITEM)
    if (found := checksums(state)) != saved["checksums"]:
        wrong = [key for key, value in saved["checksums"].items() if found.get(key) != value]
        raise ValueError(f"checksums differ: {', '.join(wrong[:3]) or 'arrays were added'}")
    return state, saved["run"]


def read_newest(
    directory: epath.PathLike, say: Callable[[str], None]
) -> tuple[int, dict[str, Any]]:
    """Reads the latest valid checkpoint as it is stored.

    Args:
        directory: folder of the checkpoints.
        say: called with a line for each later one that is damaged.

    Returns:
        Its step, and the fields of `TrainState` as nested dictionaries of NumPy arrays, modules
        apart.

    Raises:
        FileNotFoundError: there is no checkpoint.
        DataError: there are checkpoints, all of them damaged, or one could not be read.
    """
    while steps := all_steps(directory):
        for step in reversed(steps):
            path = epath.Path(directory) / str(step)
            found = try_to_read(path)
            if not isinstance(found, str):
                return step, found[0]
            if not path.exists():  # removed by the run, which is training: it has others by now
                break
            say(found)
        else:
            raise none_is_valid(directory, len(steps))
    raise FileNotFoundError(f"no checkpoint in {directory}")


def try_to_read(path: epath.Path) -> tuple[dict[str, Any], Any] | str:
    """The result of `read_checkpoint`, or a description of the damage.

    Raises:
        DataError: it could not be read, for want of memory or for an error of the disk that says
            nothing about what is there.
    """
    try:
        state, record = read_checkpoint(path)
        if int(state["step"]) != int(path.name):
            raise ValueError(f"it holds step {state['step']}")
        return state, record
    except Exception as error:  # a damaged file can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if _may_pass(error):
            raise DataError(
                f"checkpoint {path} could not be read ({reason}), and may be whole: try again; if "
                "that fails, too, repair the disk, or free memory"
            ) from error
        return f"checkpoint {path} is damaged ({reason})"


def _may_pass(error: Exception) -> bool:
    """Whether an error in reading a checkpoint is one of the machine, and not of the checkpoint."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return False
    return isinstance(error, OSError | MemoryError) or bool(_OF_THE_DISK.search(str(error)))


def none_is_valid(directory: epath.PathLike, count: int) -> DataError:
    """The error if all `count` checkpoints are damaged."""
    return DataError(
        f"no checkpoint in {directory} can be read, {count} are damaged: restore a copy, or "
        "remove that folder to start again"
    )


def arrays_by_path(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of nested dictionaries by their paths, such as "params/stem/kernel"."""
    leaves = flatten_dict(dict(tree), sep="/")
    return {key: leaf for key, leaf in leaves.items() if leaf is not None}


def checksums(tree: Mapping[str, Any]) -> dict[str, int]:
    """CRC-32 of each array's type, shape and bytes, by its path."""
    sums = {}
    for key, leaf in arrays_by_path(tree).items():
        array = np.asarray(leaf)
        start = zlib.crc32(f"{array.dtype}{array.shape}".encode())
        sums[key] = zlib.crc32(array.tobytes(), start)
    return sums
