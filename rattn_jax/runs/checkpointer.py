"""The checkpoints of a run under way: written by Orbax, in the background.

    with Checkpointer(directory, keep=3, record=config) as checkpoints:
        state = checkpoints.restore_latest(state)
        checkpoints.save(state)

directory/STEP            a checkpoint, see `checkpoint_files.py`
directory/damaged-STEP    one that could not be read, put aside
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization

from rattn_jax.errors import SaveError, UsageError
from rattn_jax.parallel.mesh import is_main_process, sum_over_processes
from rattn_jax.runs.checkpoint_files import (
    RECORD_ITEM,
    STATE_ITEM,
    all_steps,
    arrays_by_path,
    checksums,
    is_unfinished,
    none_is_valid,
    try_to_read,
)
from rattn_jax.runs.files import absolute

_DAMAGED, _REMOVING = "damaged-", "removing-"

State = TypeVar("State")


class Checkpointer:
    """The checkpoints of a run, one folder for each saved step.

    Saving goes on in the background; `check` tells early, and leaving the `with` block at the
    latest, what went wrong while writing.

    Args:
        directory: folder of the checkpoints; it is made when needed.
        keep: number of newest checkpoints to keep.
        record: what the run is, for JSON; saved with each checkpoint and compared on restoring.
        compare: called with the path, the record of a checkpoint and this run's; raises
            UsageError if it is of another run.
        say: told what was found damaged, and what could not be written.
        stop_on_error: raise SaveError when a save has failed; if not, say so, go on, and raise
            it at the end if the last save was one of them.

    Attributes:
        directory: its absolute path.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep: int,
        *,
        record: Any = None,
        compare: Callable[[epath.Path, Any, Any], None] | None = None,
        say: Callable[[str], None] = print,
        stop_on_error: bool = True,
    ) -> None:
        # Orbax reports a relative path only when the first save has ended.
        self.directory = absolute(directory)
        self._keep, self._record, self._compare, self._say = keep, record, compare, say
        self._stop_on_error = stop_on_error
        self._error: SaveError | None = None  # of the last save
        self._saving: int | None = None
        self._newest: int | None = None  # whole
        if is_main_process():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        self._is_written = threading.Event()  # the save under way
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._is_written.set),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            self.wait()
        finally:
            try:
                self._checkpointer.close()
            except Exception as leftover:
                if self._error is None:  # else it is the rest of what has been reported
                    self._give_up(leftover)
        if self._error is not None and kind is None:
            raise self._error

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._saving is not None and not self._is_written.is_set()

    def check(self) -> None:
        """Notices a save that has failed, without waiting for it.

        Raises:
            SaveError: it has, and the run is to stop.
        """
        if self._saving is None:
            return
        try:
            self._checkpointer.check_for_errors()
        except Exception as error:
            self._give_up(error)

    def wait(self) -> None:
        """Waits until the last save is whole, and removes the checkpoints that are one too many.

        Raises:
            SaveError: it has failed.
        """
        if self._saving is None:
            return
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:
            self._give_up(error)
            return
        self._newest, self._saving, self._error = self._saving, None, None
        if is_main_process():
            for step in all_steps(self.directory)[: -self._keep]:
                # Renamed first: a process that dies in between leaves nothing that looks whole.
                aside = self.directory / f"{_REMOVING}{step}"
                (self.directory / str(step)).rename(aside)
                aside.rmtree()

    def save(self, state: Any) -> None:
        """Saves the state under its step, unless that step is saved already.

        Raises:
            SaveError: this save could not begin, or the one before has failed.
        """
        self.wait()
        step = int(state.step)
        if step == self._newest:
            return
        tree = serialization.to_state_dict(state)
        record = {"checksums": checksums(jax.device_get(tree)), "run": self._record}
        self._saving = step
        self._is_written.clear()
        try:
            self._checkpointer.save(
                self.directory / str(step),
                args=ocp.args.Composite(
                    **{
                        STATE_ITEM: ocp.args.StandardSave(tree),
                        RECORD_ITEM: ocp.args.JsonSave(record),
                    }
                ),
            )
        except Exception as error:
            self._give_up(error)

    def restore_latest(self, state: State) -> State | None:
        """The newest whole checkpoint, in the form of `state`, on the host; None if there is none.

        Newer ones that are damaged are named and put aside.

        Raises:
            DataError: there are checkpoints, all of them damaged.
            UsageError: the newest whole one is of another run.
        """
        damaged: list[int] = []
        for step in reversed(all_steps(self.directory)):
            path = self.directory / str(step)
            found = try_to_read(path)
            num_complaints = sum_over_processes(int(isinstance(found, str)))  # of all processes
            if isinstance(found, str):
                self._say(found)
            if num_complaints or isinstance(found, str):
                damaged.append(step)
                continue
            tree, record = found
            if self._compare is not None:
                self._compare(path, record, self._record)
            restored = _in_form_of(state, tree, path)
            if is_main_process():
                for other in damaged:
                    self._put_aside(other)
            self._newest = step
            return restored
        if damaged:
            raise none_is_valid(self.directory, len(damaged))
        return None

    def _put_aside(self, step: int) -> None:
        aside = self.directory / f"{_DAMAGED}{step}"
        if aside.exists():
            aside.rmtree()
        (self.directory / str(step)).rename(aside)
        self._say(f"put aside as {aside}")

    def _give_up(self, error: Exception) -> None:
        """Reports the save that was under way."""
        step, self._saving = self._saving, None
        with contextlib.suppress(Exception):
            self._checkpointer.wait_until_finished()  # others of its threads may still write
        if is_main_process():
            with contextlib.suppress(OSError):  # the next one that fails, or start, tries again
                self._remove_leftovers()  # they take the space that the next save needs
        reason = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in reason:  # TensorStore's word, with a page of context
            reason = "No space left on device"
        who = f"by process {jax.process_index()} " if jax.process_count() > 1 else ""
        self._error = SaveError(
            f"the checkpoint of step {step} could not be written {who}to {self.directory} "
            f"({reason[:200]}): "
            "free space or mend the folder"
        )
        if self._stop_on_error:
            raise self._error from error
        self._say(f"{self._error}; going on, the next one may do")

    def _remove_leftovers(self) -> None:
        """What a killed or failed process has left of saving or removing."""
        for path in list(self.directory.iterdir()):
            if path.name.startswith(_REMOVING) or is_unfinished(path):
                path.rmtree(missing_ok=True)


def _in_form_of(state: State, tree: dict[str, Any], path: epath.Path) -> State:
    """The tree as a `state`; raises UsageError if its arrays have other names, shapes or types."""
    wanted, found = (
        {key: (leaf.shape, leaf.dtype) for key, leaf in arrays_by_path(arrays).items()}
        for arrays in (serialization.to_state_dict(state), tree)
    )
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise UsageError(
                f"checkpoint {path} has {key}={_show(found.get(key))}, and this config needs "
                f"{_show(wanted.get(key))}: use another workdir, or the config of that run"
            )
    return serialization.from_state_dict(state, tree)


def _show(array: tuple[Any, Any] | None) -> str:
    return f"{array[1]}{list(array[0])}" if array else "nothing"
