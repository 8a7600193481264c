"""Prints progress for the user of a run or a command.

console = Console(num_train_steps=600, batch_size=64)
console.say("training on 1 x cpu")
console.enter("evaluating test")       # "evaluating test: 4 s so far", if nothing is said for 4 s
"""

import datetime
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

_SHOWN = ("loss", "error_top1")


class Console:
    """Prints lines. On a terminal, temporary lines are overwritten by the next one.

    Args:
        num_train_steps: number of updates of the whole run; 0 outside a run.
        batch_size: global batch size.
        stream: output stream; None is standard output.
        quiet: print nothing.
        patience: seconds without output after which the phase is printed. Outside a terminal
            the interval doubles each time, so that log files stay short.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        num_train_steps: int = 0,
        batch_size: int = 0,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        patience: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet or self._stream is None  # None if it was closed when Python started
        self._num_train_steps = num_train_steps
        self._batch_size = batch_size
        self._open: str | None = None  # kind of the temporary line: "metrics" or "phase"
        self._lock = threading.RLock()
        self._patience, self._clock = patience, clock
        self._phase: str | None = None
        self._detail = ""
        self._since = self._last_write = self._wait = 0.0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def ends_at(self, step: int) -> None:
        """Sets the number of updates of the whole run, which lines of metrics name."""
        self._num_train_steps = step

    def say(self, text: str) -> None:
        """Prints a permanent line."""
        with self._lock:
            self._write("\n" if self._open else "", text, "\n")
            self._open = None

    def show(self, row: dict[str, Any]) -> None:
        """Prints a line of metrics."""
        total = str(self._num_train_steps)
        loss, error = (math.nan if row[name] is None else row[name] for name in _SHOWN)
        text = (
            f"step {row['step']:>{len(total)}}/{total}  {row['split']:5}  "
            f"loss {loss:.4f}  error {100 * error:6.2f} %"
        )
        if row["split"] != "train":
            text += f"  accuracy {100 * (1 - error):6.2f} %"
        if (precision := row.get("mean_average_precision")) is not None:
            text += f"  mAP {precision:.4f}  F1 {row['f1_macro']:.4f}"
        rate = row["images_per_second"]
        if rate is not None:
            text += f"  {rate:,.0f} images/s"
        if row["split"] != "train":
            self.say(text)
            return
        if rate is not None:
            images_left = (self._num_train_steps - row["step"]) * self._batch_size
            text += f"  {datetime.timedelta(seconds=round(images_left / rate))} left"
        self._say_for_now(text, "metrics")

    def enter(self, phase: str | None, detail: str = "") -> None:
        """Sets the current phase, which is printed when it takes long without other output.

        Args:
            phase: description such as "evaluating test"; None prints nothing.
            detail: progress within the phase; if empty, the elapsed seconds are printed.
        """
        if self._quiet:
            return
        with self._lock:
            self._detail = detail
            if phase == self._phase:
                return
            self._phase, self._wait = phase, self._patience
            self._since = self._last_write = self._clock()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops printing phases, and erases a temporary line."""
        self._closed.set()
        with self._lock:
            if self._open == "phase":
                self._write("\r\033[K")
                self._open = None

    def remind(self) -> None:
        """Prints the current phase if nothing has been printed for long enough."""
        with self._lock:
            now = self._clock()
            if self._phase is None or now - self._last_write < self._wait:
                return
            seconds = f": {now - self._since:.0f} s so far"
            far = f", {self._detail}" if self._detail else seconds
            self._say_for_now(self._phase + far, "phase")
            if not self._stream.isatty():
                self._wait *= 2

    def _watch(self) -> None:
        while not self._closed.wait(self._patience / 8):
            self.remind()

    def _say_for_now(self, text: str, kind: str) -> None:
        """Prints a line that, on a terminal, the next one of the same kind overwrites."""
        if self._quiet or not self._stream.isatty():
            self.say(text)
            return
        with self._lock:
            keep = self._open == "metrics" and kind == "phase"
            self._write("\n" if keep else "\r\033[K", text)  # from the line's start, over the last
            self._open = kind

    def _write(self, *texts: str) -> None:
        if self._quiet:
            return
        # Names of files may have what the stream cannot encode.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        text = "".join(texts).encode(encoding, "backslashreplace").decode(encoding)
        try:
            print(text, end="", file=self._stream, flush=True)
        except OSError:  # the reader is gone: go on, and let Python flush at exit
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        self._last_write = self._clock()
