"""Checkpoints on disk, read without changing anything there, and never taken at their word.

    step, state_dict = read_newest(directory, print)

directory/STEP/state      the arrays
directory/STEP/record     their checksums, and what the run was: in one commit with them
"""

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict

from rattn_jax.errors import DataError

STATE_ITEM, RECORD_ITEM = "state", "record"
_UNFINISHED = ".orbax-checkpoint-tmp"


def all_steps(directory: epath.PathLike) -> list[int]:
    """Steps that have a finished folder, lowest first, whole or not."""
    folder = epath.Path(directory)
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal() and not is_unfinished(path)
    )


def is_unfinished(path: epath.Path) -> bool:
    """Whether saving has not come to its end, and never will if no process works on it."""
    # In gs:// Orbax does not rename a folder that is whole, it adds a file that says so.
    in_place = str(path).startswith("gs://") and path.name.isdecimal()
    return _UNFINISHED in path.name or (in_place and not ocp.utils.is_checkpoint_finalized(path))


def read_checkpoint(path: epath.PathLike) -> tuple[dict[str, Any], Any]:
    """Reads a checkpoint, changing nothing on disk.

    Args:
        path: its folder.

    Returns:
        The state as nested dictionaries of NumPy arrays (`flax.serialization.to_state_dict`), and
        the record that was saved with it.

    Raises:
        Exception: it is damaged, of whatever kind the library that notices it raises.
    """
    folder = epath.Path(path)
    saved = json.loads((folder / RECORD_ITEM / "metadata").read_text())
    # The handler alone, without a Checkpointer around it, does not wait for other processes.
    handler = ocp.PyTreeCheckpointHandler()
    stored = handler.metadata(folder / STATE_ITEM).tree
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
    restore = ocp.args.PyTreeRestore(restore_args=on_host)
    state = handler.restore(folder / STATE_ITEM, args=restore)
    handler.close()
    if (found := checksums(state)) != saved["checksums"]:
        wrong = [key for key, value in saved["checksums"].items() if found.get(key) != value]
        raise ValueError(f"checksums differ: {', '.join(wrong[:3]) or 'arrays were added'}")
    return state, saved["run"]


def read_newest(
    directory: epath.PathLike, say: Callable[[str], None]
) -> tuple[int, dict[str, Any]]:
    """The newest whole checkpoint, as it is stored; nothing in the directory is touched.

    Args:
        directory: folder of the checkpoints.
        say: told which newer ones are damaged.

    Returns:
        Its step, and the fields of `TrainState` as nested dictionaries of NumPy arrays, modules
        apart.

    Raises:
        FileNotFoundError: there is no checkpoint.
        DataError: there are checkpoints, all of them damaged.
    """
    steps = all_steps(directory)
    for step in reversed(steps):
        found = try_to_read(epath.Path(directory) / str(step))
        if not isinstance(found, str):
            return step, found[0]
        say(found)
    if steps:
        raise none_is_valid(directory, len(steps))
    raise FileNotFoundError(f"no checkpoint in {directory}")


def try_to_read(path: epath.Path) -> tuple[dict[str, Any], Any] | str:
    """What `read_checkpoint` gives, or in what way the checkpoint is damaged."""
    try:
        state, record = read_checkpoint(path)
        if int(state["step"]) != int(path.name):
            raise ValueError(f"it holds step {state['step']}")
        return state, record
    except Exception as error:  # of many kinds: whatever is found in a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return f"checkpoint {path} is damaged ({reason})"


def none_is_valid(directory: epath.PathLike, count: int) -> DataError:
    """What to say where all checkpoints, so many, are damaged."""
    return DataError(
        f"no checkpoint in {directory} can be read, {count} are damaged: put back a copy, or "
        "remove that folder to begin again"
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
