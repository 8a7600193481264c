"""A trace of some updates, for TensorBoard and XProf.

with Profiler(folder / "profile", steps=(100, 110)) as profiler:
    profiler.reached(step)    # before and after each call
"""

from types import TracebackType

import jax
from etils import epath

from rattn_jax.parallel.mesh import is_main_process


class Profiler:
    """Traces the updates from one step to another; of several processes, the main one's.

    Args:
        folder: where the trace is written.
        steps: number of updates done when it begins, and when it ends; None traces nothing.

    Attributes:
        steps: the same; calls must not go beyond one of them.
    """

    def __init__(self, folder: epath.Path, steps: tuple[int, int] | None) -> None:
        self._folder = folder
        self.steps = steps
        self._runs = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def reached(self, step: int, state: object) -> None:
        """Begins or ends the trace if it is time.

        Args:
            step: number of updates asked for.
            state: what they compute, waited for at the ends of the trace.
        """
        if self.steps is None or not is_main_process():
            return
        begin, end = self.steps
        if begin <= step < end and not self._runs:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._runs = True
        elif step >= end and self._runs:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()
