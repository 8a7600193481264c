"""Lines for the person who watches a run."""

import datetime
import math
import os
import sys
from typing import Any, TextIO

_SHOWN = ("loss", "error_top1")


class Progress:
    """Lines for a person who watches: on a terminal the training line is written over.

    Args:
        num_train_steps: updates of the whole run.
        batch_size: images an update.
        stream: where to write; None is standard output.
        quiet: write nothing.
    """

    def __init__(
        self,
        num_train_steps: int,
        batch_size: int,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet or self._stream is None  # it was closed before Python began
        self._num_train_steps = num_train_steps
        self._batch_size = batch_size
        self._line_is_open = False

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._write("\n" if self._line_is_open else "", text, "\n")
        self._line_is_open = False

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
        if row["split"] == "train":
            if rate is not None:
                images_left = (self._num_train_steps - row["step"]) * self._batch_size
                text += f"  {datetime.timedelta(seconds=round(images_left / rate))} left"
            if not self._quiet and self._stream.isatty():
                self._write("\r\033[K", text)  # from the line's start, over the last one
                self._line_is_open = True
                return
        self.say(text)

    def _write(self, *texts: str) -> None:
        if self._quiet:
            return
        try:
            print(*texts, sep="", end="", file=self._stream, flush=True)
        except OSError:  # nobody reads any more: the run goes on, and Python can flush at its end
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
