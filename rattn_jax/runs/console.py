"""Lines for the person who watches a run or a command.

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
from typing import Any, TextIO

_SHOWN = ("loss", "error_top1")


class Console:
    """Writes lines. On a terminal, one that does not stay is written over by the next.

    Args:
        num_train_steps: updates of the whole run, if there is one.
        batch_size: images an update.
        stream: where to write; None is standard output.
        quiet: write nothing.
        patience: seconds without a line after which `enter` has its line written. Where lines
            cannot be written over, the next one takes twice as long, so that logs stay short.
    """

    def __init__(
        self,
        num_train_steps: int = 0,
        batch_size: int = 0,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        patience: float = 4.0,
    ) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet or self._stream is None  # it was closed before Python began
        self._num_train_steps = num_train_steps
        self._batch_size = batch_size
        self._open: str | None = None  # what an unfinished line is: "metrics" or "phase"
        self._lock = threading.RLock()
        self._patience = patience
        self._phase: str | None = None
        self._detail = ""
        self._since = self._last_write = self._wait = 0.0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        with self._lock:
            self._write("\n" if self._open else "", text, "\n")
            self._open = None

    def show(self, row: dict[str, Any]) -> None:
        """Writes a line of metrics."""
        total = str(self._num_train_steps)
        loss, error = (math.nan if row[name] is None else row[name] for name in _SHOWN)
        text = (
            f"step {row['step']:>{len(total)}}/{total}  {row['split']:5}  "
            f"loss {loss:.4f}  error {100 * error:6.2f} %"
        )
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
        """Has it said what goes on from here, once that takes long without another line.

        Args:
            phase: what goes on, such as "evaluating test"; None says nothing.
            detail: how far it is; else the seconds are said.
        """
        if self._quiet:
            return
        with self._lock:
            self._detail = detail
            if phase == self._phase:
                return
            self._phase, self._wait = phase, self._patience
            self._since = self._last_write = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends what `enter` has begun, and wipes its line away."""
        self._closed.set()
        with self._lock:
            if self._open == "phase":
                self._write("\r\033[K")
                self._open = None

    def _watch(self) -> None:
        while not self._closed.wait(self._patience / 8):
            with self._lock:
                now = time.monotonic()
                if self._phase is None or now - self._last_write < self._wait:
                    continue
                seconds = f": {now - self._since:.0f} s so far"
                far = f", {self._detail}" if self._detail else seconds
                self._say_for_now(self._phase + far, "phase")
                if not self._stream.isatty():
                    self._wait *= 2

    def _say_for_now(self, text: str, kind: str) -> None:
        """Writes a line that, on a terminal, the next one of its kind takes the place of."""
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
        try:
            print(*texts, sep="", end="", file=self._stream, flush=True)
        except OSError:  # nobody reads any more: the run goes on, and Python can flush at its end
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        self._last_write = time.monotonic()
