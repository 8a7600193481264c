"""Training speed, and a trace of some updates for TensorBoard and XProf.

with Profiler(folder / "profile", steps=(100, 110)) as profiler:
    profiler.update(step)    # before and after each call
"""

import dataclasses
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

import jax
from etils import epath

from rattn_jax.parallel.mesh import is_main_process


class Profiler:
    """Traces the updates between two steps, in the main process.

    Args:
        folder: folder of the trace.
        steps: first and last step of the trace, which no call of the train step may cross; None
            traces nothing.
    """

    def __init__(self, folder: epath.Path, steps: tuple[int, int] | None) -> None:
        self._folder = folder
        self._steps = steps
        self._runs = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def update(self, step: int, state: object) -> None:
        """Starts or stops the trace if its step is reached.

        Args:
            step: number of updates dispatched so far.
            state: their result, which is waited for when the trace starts or stops.
        """
        if self._steps is None or not is_main_process():
            return
        begin, end = self._steps
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
        input_wait_share: fraction of the time spent waiting for the next batch.
    """

    images_per_second: float
    steps_per_sec: float
    input_wait_share: float


class Throughput:
    """Counts updates while its stopwatch runs.

    Updates that share the processor with other work, such as a checkpoint that is written in the
    background, are counted separately: they are used only if there are no other updates.

    Args:
        batch_size: images an update.
        clock: monotonic clock, in seconds.
    """

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch_size = batch_size
        self._clock = clock
        self._alone, self._disturbed = _Tally(), _Tally()
        self._running: _Tally | None = None
        self._since = 0.0
        self._waited = 0.0  # just before, while the stopwatch stood still

    def start(self, *, disturbed: bool = False) -> None:
        """Starts the stopwatch; does nothing if it is running.

        Time that was spent waiting for a batch since the stopwatch was stopped counts as well.

        Args:
            disturbed: whether other work shares the processor.
        """
        if self._running is None:
            self._running = self._disturbed if disturbed else self._alone
            self._since = self._clock() - self._waited
            self._running.waited += self._waited
            self._waited = 0.0

    def is_running(self, *, disturbed: bool) -> bool:
        """Whether the stopwatch is running and was started with the same value."""
        return self._running is (self._disturbed if disturbed else self._alone)

    def add(self, steps: int) -> None:
        """Counts updates; the stopwatch must be running."""
        if self._running is not None:
            self._running.steps += steps

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Measures the block as time spent waiting for a batch."""
        start = self._clock()
        yield
        waited = self._clock() - start
        if self._running is None:
            self._waited = waited
        else:
            self._running.waited += waited

    def stop(self) -> None:
        """Stops the stopwatch; the caller must have waited for the computation to end."""
        if self._running is not None:
            self._running.seconds += self._clock() - self._since
            self._running = None
        self._waited = 0.0

    def take(self) -> Speed | None:
        """Returns the speed since the last call and resets it; None if no update was counted."""
        tally = self._alone if self._alone.steps else self._disturbed
        self._alone, self._disturbed = _Tally(), _Tally()
        if not (tally.steps and tally.seconds):
            return None
        steps_per_sec = tally.steps / tally.seconds
        return Speed(self._batch_size * steps_per_sec, steps_per_sec, tally.waited / tally.seconds)


@dataclasses.dataclass
class _Tally:
    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
