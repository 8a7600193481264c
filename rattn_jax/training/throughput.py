"""Speed of training alone, without evaluation, checkpoints and compilation."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple


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
