"""Handles SIGTERM (a preempted machine), its like, and Ctrl-C: the run stops at a safe point."""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from rattn_jax.errors import STOPPED, Preempted

_LIBC = ctypes.CDLL(None)
_LIBC.signal.argtypes, _LIBC.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p

# A terminal that was closed, and what batch systems send before the end of a job. Where they do not
# have their default, as SIGHUP has not after nohup, they stay as they are. So does Ctrl-C where it
# is ignored, as in what a shell script starts in the background.
_AS_SIGTERM = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class PreemptionGuard:
    """While the `with` block runs, signals that ask for an end only make `check` raise.

    These are SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and the first Ctrl-C; a second Ctrl-C interrupts at
    once. If no safe point is reached within the grace time, as in the middle of a long compilation,
    they end the process with status STOPPED, except for Ctrl-C. With several processes Ctrl-C
    always interrupts, and the others are passed to JAX as SIGTERM, which makes all processes stop
    after the same step. Python handles signals in the main thread alone: in another one `say` is
    called with a line, and they are left as they are.

    Args:
        grace_seconds: time after a signal in which a safe point must be reached.
        say: see above.
    """

    def __init__(self, grace_seconds: float, say: Callable[[str], None] = print) -> None:
        self._grace_seconds, self._say = grace_seconds, say
        self._requested = False
        self._left = threading.Event()
        self._count = 0
        self._previous: dict[int, Any] = {}  # handlers

    def check(self) -> None:
        """Raises Preempted if a signal has arrived. All processes call it at the same points.

        Raises:
            Preempted: a signal has arrived, in all processes at the same point.
        """
        if jax.process_count() > 1:
            self._count += 1
            self._requested |= multihost_utils.reached_preemption_sync_point(self._count)
        if self._requested:
            raise Preempted("a signal has come: save, and leave")

    def __enter__(self) -> "PreemptionGuard":
        if threading.current_thread() is not threading.main_thread():
            self._say(
                "training in a thread that is not the main one: no signal saves first, and the "
                "latest checkpoint is what is left"
            )
            return self
        several = jax.process_count() > 1
        self._handler_of_jax = _take_handler(signal.SIGTERM) if several else None
        free = [n for n in _AS_SIGTERM if signal.getsignal(n) is signal.SIG_DFL]
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        numbers = (signal.SIGTERM, *free, *(() if several or is_ignored else (signal.SIGINT,)))
        handle = self._ignore if several else self._handle
        self._previous = {number: signal.signal(number, handle) for number in numbers}
        # Python runs handlers between bytecode instructions, so not during a compilation.
        # Another thread reads this socket without delay.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._previous:  # in another thread than the main one
            return
        self._left.set()
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._handler_of_jax:
            _LIBC.signal(signal.SIGTERM, self._handler_of_jax)
        self._writer.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        if signal.SIGINT in self._previous:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal that the thread has passed on."""

    def _watch(self) -> None:
        with self._reader:  # stays open, for further signals
            while data := self._reader.recv(1):
                # Python writes every signal here, also those that the user handles.
                if data[0] in self._previous and data[0] != signal.SIGINT:
                    break
            if data and self._handler_of_jax:
                ctypes.CFUNCTYPE(None, ctypes.c_int)(self._handler_of_jax)(signal.SIGTERM)
            if data and not self._left.wait(self._grace_seconds):
                print(
                    f"{signal.Signals(data[0]).name}, and {self._grace_seconds:g} s were not "
                    "enough to save: run again to resume from the latest checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(STOPPED)


def _take_handler(number: int) -> int | None:
    """Address of a signal's handler that is not Python's, which is no longer called; or None."""
    default = signal.SIG_DFL.value
    handler = _LIBC.signal(number, default)
    return handler if handler not in (None, default, signal.SIG_IGN.value) else None
