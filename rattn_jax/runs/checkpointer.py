"""Saves and restores the checkpoints of a run with Orbax, in the background.

    with Checkpointer(directory, keep=3, record=config) as checkpoints:
        state = checkpoints.restore_latest(state)
        checkpoints.save(state)

directory/STEP            a checkpoint, see `checkpoint_files.py`
directory/damaged-STEP    a damaged one, moved out of the way
"""

import contextlib
import datetime
import threading
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization
from orbax.checkpoint.checkpoint_manager import CheckpointInfo
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    CustomSteps,
    LatestN,
    PreservationContext,
)

from rattn_jax.errors import DataError, SaveError, UsageError
from rattn_jax.parallel.mesh import is_main_process, sum_over_processes
from rattn_jax.runs.checkpoint_files import (
    DAMAGED,
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

_REMOVING = "removing-"

State = TypeVar("State")


class Checkpointer:
    """The checkpoints of a run, one folder for each saved step.

    Saves run in the background, but for the first of this process: it is read back before it
    counts. `check` raises early if one has failed; leaving the `with` block raises at the latest,
    unless another error is leaving it.

    Args:
        directory: folder of the checkpoints; created if it does not exist.
        keep: number of latest checkpoints to keep.
        record: JSON description of the run; saved with each checkpoint and compared on restore.
        compare: called with path, record of the checkpoint and record of this run; raises
            UsageError if they belong to different runs.
        say: called with a line about damaged checkpoints and failed saves.
        stop_on_error: raise SaveError as soon as a save has failed; otherwise report it and
            raise at the end only if the last save failed.

    Attributes:
        directory: its absolute path.
        best_of: function of steps that gives the best of them, or None; of those that are saved it
            is kept whatever its age.
        restored: record of the checkpoint that was restored; None if none was.
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
        # Orbax refuses a relative path only after the first save.
        self.directory = absolute(directory)
        self._keep, self._record, self._compare, self._say = keep, record, compare, say
        self.best_of: Callable[[Collection[int]], int | None] = lambda steps: None
        self._not_removed: set[int] = set()
        self.restored: Any = None
        self._stop_on_error = stop_on_error
        self._error: SaveError | None = None  # of the last save
        self._saving: int | None = None
        self._newest: int | None = None  # valid
        self._is_trusted = False  # whether what this process saves there can be read
        if is_main_process():
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                self._remove_leftovers()
            except OSError as error:  # the next start tries again
                self._say(f"leftovers in {self.directory} cannot be removed ({error})")
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
                if self._error is None:  # otherwise it has been reported already
                    self._give_up(leftover)
        if self._error is not None and kind is None:
            raise self._error

    def steps(self) -> set[int]:
        """Steps of the checkpoints, with the one that is being saved."""
        being_saved = set() if self._saving is None else {self._saving}
        return {*all_steps(self.directory)} | being_saved

    def is_saving(self) -> bool:
        """Whether a save is running in the background."""
        return self._saving is not None and not self._is_written.is_set()

    def check(self) -> None:
        """Reports a save that has failed, without waiting.

        Raises:
            SaveError: a save has failed and `stop_on_error` is set.
        """
        if self._saving is None:
            return
        try:
            self._checkpointer.check_for_errors()
        except Exception as error:
            self._give_up(error)

    def wait(self) -> None:
        """Waits for the last save, and removes checkpoints in excess of `keep`.

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
        if not self._is_trusted and not self._reads_back(self._saving):
            return
        self._newest, self._saving, self._error = self._saving, None, None
        self._remove_superfluous()

    def _remove_superfluous(self) -> None:
        if is_main_process():
            for step in self._superfluous():
                self._remove(step)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint, or says once that it cannot be."""
        path, aside = self.directory / str(step), self.directory / f"{_REMOVING}{step}"
        try:
            # Renamed first: a killed process leaves no checkpoint that looks valid.
            path.rename(aside)
            aside.rmtree()
        except OSError as error:
            if step not in self._not_removed:
                self._not_removed.add(step)
                left = path if path.exists() else aside
                self._say(f"checkpoint {step} cannot be removed ({error}): remove {left}")

    def _reads_back(self, step: int) -> bool:
        """Whether the checkpoint can be read as resuming does; if not, it is put aside."""
        try:
            found = try_to_read(self.directory / str(step)) if is_main_process() else ()
        except DataError as error:
            self._saving = None
            self._report(SaveError(str(error)), error)
            return False
        self._is_trusted = not isinstance(found, str)
        if isinstance(found, str):
            self._saving = None
            self._put_aside(step)
            self._report(
                SaveError(
                    f"{found}, though it has just been written: choose a workdir on another disk, "
                    "or repair this one"
                )
            )
        return self._is_trusted

    def _superfluous(self) -> list[int]:
        """Steps of the checkpoints that are neither among the newest nor the best."""
        steps = all_steps(self.directory)
        best = self.best_of(steps)
        kept_anyway = [] if best is None else [best]
        policy = AnyPreservationPolicy([LatestN(self._keep), CustomSteps(kept_anyway)])
        now = datetime.datetime.now(datetime.UTC)  # of no account to these policies
        infos = [CheckpointInfo(step=step, time=now, metrics=None) for step in steps]
        kept = policy.should_preserve(infos, context=PreservationContext())
        return [step for step, is_kept in zip(steps, kept, strict=True) if not is_kept]

    def save(self, state: Any) -> None:
        """Saves the state under its step, unless that step has been saved or is being saved.

        Raises:
            SaveError: this save could not start, the previous one has failed, or the first one
                cannot be read back.
        """
        self.check()
        step = int(state.step)
        if step == self._saving:
            return
        self.wait()
        if step == self._newest:
            self._remove_superfluous()  # it may be the best since it was saved
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
        if not self._is_trusted:
            self.wait()

    def save_at_last(self, state: Any) -> None:
        """Saves the state, tries again if its save has failed, and waits until it is saved.

        Raises:
            SaveError: it is not saved, also where a failed save does not end the run.
        """
        self.wait()
        self.save(state)
        self.wait()
        if self._error is not None:
            raise self._error

    def restore_latest(self, state: State) -> State | None:
        """Restores the latest valid checkpoint in the structure of `state`; None without one.

        The arrays are on the host. Later checkpoints that are damaged are reported and renamed.

        Raises:
            DataError: there are checkpoints, all of them damaged, or one could not be read.
            UsageError: the latest valid one belongs to another run.
        """
        damaged: list[int] = []
        for step in reversed(all_steps(self.directory)):
            path = self.directory / str(step)
            found = try_to_read(path)
            (num_complaints,) = sum_over_processes([int(isinstance(found, str))])  # of all
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
            self._newest, self.restored = step, record
            return restored
        if damaged:
            raise none_is_valid(self.directory, len(damaged))
        return None

    def _put_aside(self, step: int) -> None:
        aside = self.directory / f"{DAMAGED}{step}"
        if aside.exists():
            aside.rmtree()
        (self.directory / str(step)).rename(aside)
        self._say(f"renamed to {aside}")

    def _give_up(self, error: Exception) -> None:
        """Reports the failure of the save in progress."""
        step, self._saving = self._saving, None
        with contextlib.suppress(Exception):
            self._checkpointer.wait_until_finished()  # its other threads may still be writing
        if is_main_process():
            with contextlib.suppress(OSError):  # the next failure or start tries again
                self._remove_leftovers()  # the next save needs their space
        reason = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in reason:  # TensorStore's message has a page of context
            reason = "No space left on device"
        who = f"by process {jax.process_index()} " if jax.process_count() > 1 else ""
        self._report(
            SaveError(
                f"the checkpoint of step {step} could not be written {who}to {self.directory} "
                f"({reason[:200]}): free space or repair the folder"
            ),
            error,
        )

    def _report(self, failure: SaveError, cause: Exception | None = None) -> None:
        """Raises or says that a save has failed."""
        self._error = failure
        if self._stop_on_error:
            raise failure from cause
        self._say(f"{failure}; the run continues, and the next save may succeed")

    def _remove_leftovers(self) -> None:
        """Removes what a killed or failed process has left behind."""
        for path in list(self.directory.iterdir()):
            if path.name.startswith(_REMOVING) or is_unfinished(path):
                path.rmtree(missing_ok=True)


def _in_form_of(state: State, tree: dict[str, Any], path: epath.Path) -> State:
    """Converts the tree to `State`; raises UsageError if names, shapes or types differ."""
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
