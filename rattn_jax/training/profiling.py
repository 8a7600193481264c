"""Speed of training alone, and a trace of some updates for TensorBoard and XProf.

with Profiler(folder / "profile", steps=(100, 110)) as profiler:
    profiler.reached(step)    # before and after each call
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

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


class Speed(NamedTuple):
    """Averages over a period.

    Attributes:
        images_per_second: images.
        steps_per_sec: updates.
        input_wait_share: part of the time in which the next batch was waited for, from 0 to 1.
    """

    images_per_second: float
    steps_per_sec: float
    input_wait_share: float


class Throughput:
    """Counts updates while its stopwatch runs.

    Args:
        batch_size: images an update.
        clock: seconds, ever increasing.
    """

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch_size = batch_size
        self._clock = clock
        self._steps = 0
        self._seconds = self._waited = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Lets the stopwatch run; nothing if it runs already."""
        if self._since is None:
            self._since = self._clock()

    def add(self, steps: int) -> None:
        """Counts updates."""
        self._steps += steps

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While the block runs, a batch is waited for."""
        start = self._clock()
        yield
        if self._since is not None:
            self._waited += self._clock() - start

    def stop(self) -> None:
        """Stops the watch; the caller has waited for the computation to end."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def take(self) -> Speed | None:
        """Speed since the last call, and starts again; None if no update was counted."""
        speed = None
        if self._steps and self._seconds:
            steps_per_sec = self._steps / self._seconds
            speed = Speed(
                self._batch_size * steps_per_sec, steps_per_sec, self._waited / self._seconds
            )
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        return speed
