"""Images per second of training alone, without evaluation, checkpoints and compilation."""

import time
from collections.abc import Callable


class Throughput:
    """Counts images while its stopwatch runs.

    Args:
        clock: seconds, ever increasing.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._images = 0
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Lets the stopwatch run; nothing if it runs already."""
        if self._since is None:
            self._since = self._clock()

    def add(self, images: int) -> None:
        """Counts images."""
        self._images += images

    def stop(self) -> None:
        """Stops the watch; the caller has waited for the computation to end."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def take(self) -> float | None:
        """Images per second since the last call, and starts again; None if none was counted."""
        rate = self._images / self._seconds if self._images and self._seconds else None
        self._images, self._seconds = 0, 0.0
        return rate
