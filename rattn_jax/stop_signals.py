"""Leaving in order when asked to: SIGTERM (a preempted machine) and Ctrl-C."""

import signal
from types import FrameType, TracebackType


class StopSignals:
    """While the `with` block runs, SIGTERM and the first Ctrl-C only set `requested`.

    A second Ctrl-C interrupts at once, as it always does.

    Attributes:
        requested: whether a signal has come; the training loop looks at it after each call.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignals":
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
