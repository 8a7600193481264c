"""Speed of training alone, and a trace of some updates for TensorBoard and XProf.

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

    def __exit__(self, *error: object) -> None:
        self._stop()

    def update(self, step: int, state: object) -> None:
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

    Updates during which something else takes the processor's time, as a checkpoint that is written
    in the background does, are counted apart: they tell the speed only where there are no others.

    Args:
        batch_size: images an update.
        clock: seconds, ever increasing.
    """

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch_size = batch_size
        self._clock = clock
        self._alone, self._disturbed = _Tally(), _Tally()
        self._running: _Tally | None = None
        self._since = 0.0

    def start(self, *, disturbed: bool = False) -> None:
        """Lets the stopwatch run; nothing if it runs already.

        Args:
            disturbed: whether something else is going on beside training.
        """
        if self._running is None:
            self._running = self._disturbed if disturbed else self._alone
            self._since = self._clock()

    def is_running(self, *, disturbed: bool) -> bool:
        """Whether the stopwatch runs, and was started with this."""
        return self._running is (self._disturbed if disturbed else self._alone)

    def add(self, steps: int) -> None:
        """Counts updates, while the stopwatch runs."""
        if self._running is not None:
            self._running.steps += steps

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While the block runs, a batch is waited for."""
        start = self._clock()
        yield
        if self._running is not None:
            self._running.waited += self._clock() - start

    def stop(self) -> None:
        """Stops the watch; the caller has waited for the computation to end."""
        if self._running is not None:
            self._running.seconds += self._clock() - self._since
            self._running = None

    def take(self) -> Speed | None:
        """Speed since the last call, and starts again; None if no update was counted."""
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
