"""Leaving in order when asked to: SIGTERM (a preempted machine) and Ctrl-C."""

import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """While the `with` block runs, SIGTERM and the first Ctrl-C only set `requested`.

    A second Ctrl-C interrupts at once, as it always does. With several processes Ctrl-C always
    does, and SIGTERM is JAX's, which makes them agree on the step after which they stop.
    """

    def __init__(self) -> None:
        self._requested = False

    def requested(self, step: int) -> bool:
        """Whether to stop after `step` updates; the training loop asks after each call."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def __enter__(self) -> "StopSignals":
        handled = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
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
        self._requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
