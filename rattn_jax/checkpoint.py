"""Checkpoints of the train state, with Orbax.

with Checkpoints(directory, keep=3) as checkpoints:
    state = checkpoints.restore_newest(state)
    checkpoints.save(state)
"""

from types import TracebackType

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization

from rattn_jax.parallel import is_main_process
from rattn_jax.train_state import TrainState


class Checkpoints:
    """The checkpoints of a run, one folder for each saved step.

    Saving goes on in the background; leaving the `with` block waits until the last one is
    whole, and raises what went wrong while writing it.

    Attributes:
        directory: folder of the checkpoints; it is made when needed.
        keep: number of newest checkpoints to keep.
    """

    def __init__(self, directory: epath.PathLike, keep: int) -> None:
        # Orbax reports a relative path only when the first save has ended.
        self.directory = epath.Path(directory).absolute()
        # What a killed process has left of a save. Orbax's own option for this works in the
        # background, and fails loudly in a process that ends at once.
        if is_main_process():
            for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                leftover.rmtree()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def newest_step(self) -> int | None:
        """Step of the newest whole checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Saves the state under its step, unless that step is saved already."""
        step = int(state.step)
        if step != self.newest_step():
            self._manager.save(step, args=ocp.args.StandardSave(serialization.to_state_dict(state)))

    def restore_newest(self, state: TrainState) -> TrainState:
        """The newest checkpoint, on the devices and in the shapes of `state`.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        step = self.newest_step()
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self.directory}")
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, serialization.to_state_dict(state))
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return serialization.from_state_dict(state, restored)
