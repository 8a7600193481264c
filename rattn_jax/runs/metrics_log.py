"""Where metrics go: metrics.jsonl, the console, and writers such as TensorBoard's event files."""

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from PIL import Image

from rattn_jax.errors import SaveError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.console import Console
from rattn_jax.runs.event_file import EventFile
from rattn_jax.runs.files import is_remote, replace_text
from rattn_jax.runs.rows import read_rows
from rattn_jax.runs.writer import Background, Writer

# Seconds in which writers must be open before the run begins, and take what is left at its end.
_OPENING, _FINISHING = 60.0, 10.0


class MetricsLog:
    """metrics.jsonl: one JSON object per line, without torn or repeated lines.

    Opening it drops an unfinished line of a killed process, and all lines after `last_step`, which
    the resumed run will write again.

    Attributes:
        history: the lines, oldest first.

    Raises:
        UsageError: an earlier line is damaged.
    """

    def __init__(self, path: epath.Path, last_step: int) -> None:
        self._path = path
        self.history = [row for row in read_rows(path) if row["step"] <= last_step]
        kept = "".join(json.dumps(row) + "\n" for row in self.history)
        if not path.exists() or kept.encode() != path.read_bytes():
            replace_text(path, kept)
        self._is_behind = False  # the last line was not written completely

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: it could not be written; the next call tries again, and so does `catch_up`.
        """
        self.history.append(row)
        # Object stores cannot append, and a full disk may have cut a line short.
        whole = is_remote(self._path) or self._is_behind
        self._is_behind = True
        if whole:
            self.catch_up()
            return
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._is_behind = False

    def catch_up(self) -> None:
        """Writes what could not be written before, if there is anything.

        Raises:
            OSError: it still cannot be written.
        """
        if self._is_behind:
            replace_text(self._path, "".join(json.dumps(row) + "\n" for row in self.history))
            self._is_behind = False


class MetricWriter:
    """Writes each line of metrics to file, console and other writers, in the main process.

    The file is what counts. TensorBoard and the loggers neither end nor delay the run; see
    `Background`.

    Args:
        folder: the run's folder.
        last_step: later lines are dropped, because their steps will be done again.
        console: prints the lines for the user.
        stop_on_error: raise SaveError when a line cannot be written; otherwise report it, write
            it together with the next line or at the end, and raise if that fails, too.
        loggers: writers beside TensorBoard's, not opened yet.
    """

    def __init__(
        self,
        folder: epath.Path,
        last_step: int,
        console: Console,
        *,
        stop_on_error: bool = True,
        loggers: Sequence[Writer] = (),
    ) -> None:
        self._folder, self._console = folder, console
        self._stop_on_error = stop_on_error
        self._error: SaveError | None = None  # of the last line
        self._writes = is_main_process()
        self._writers: list[Background] = []
        if self._writes:
            self._log = MetricsLog(folder / "metrics.jsonl", last_step)
            events = EventFile(folder / "tensorboard", last_step)
            self._writers = [Background(w, self.history, console.say) for w in (events, *loggers)]

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._error is not None:
            with contextlib.suppress(OSError):
                self._log.catch_up()
                self._error = None
        for writer in self._writers:
            writer.end(ended_well=kind is None)
        deadline = time.monotonic() + _FINISHING
        for writer in self._writers:
            writer.join(deadline)
        if self._error is not None and kind is None:
            raise self._error

    def wait_for_loggers(self) -> None:
        """Waits until the loggers are open or have failed, but not for long.

        Raises:
            UsageError: one of them needs the user, as an account that is missing.
        """
        deadline = time.monotonic() + _OPENING
        for writer in self._writers:
            writer.wait_until_open(deadline - time.monotonic())

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines so far, oldest first; empty in other processes than the main one."""
        return self._log.history if self._writes else []

    def newest(self, split: str) -> dict[str, Any] | None:
        """The newest line of the split; None if there is none."""
        return next((row for row in reversed(self.history) if row["split"] == split), None)

    def has(self, split: str, step: int) -> bool:
        """Whether the split has a line of this step."""
        return (self.newest(split) or {}).get("step") == step

    def write(
        self,
        step: int,
        split: str,
        averages: Mapping[str, float],
        *,
        learning_rate: float,
        images_per_second: float | None,
        **measured: float | None,
    ) -> None:
        """Writes a line.

        Args:
            step: number of updates done.
            split: "train", "test" or "validation".
            averages: "loss", "error_top1", "error_top5" and, of an evaluation, more; null in the
                line if they are NaN or infinite, which JSON does not know.
            learning_rate: rate of the last update.
            images_per_second: throughput; None if it was not measured.
            **measured: further fields of the line.

        Raises:
            SaveError: it could not be written.
        """
        if not self._writes:
            return
        numbers = {name: v if math.isfinite(v) else None for name, v in averages.items()}
        row = {
            "step": step,
            "split": split,
            **numbers,
            "learning_rate": learning_rate,
            "images_per_second": images_per_second,
            **measured,
            "time": time.time(),
        }
        self._console.show(row)
        try:
            self._log.append(row)
            self._error = None
        except OSError as error:
            self._error = SaveError(
                f"metrics of step {step} could not be written to {self._folder} "
                f"({error.strerror}): free space or repair the folder"
            )
            if self._stop_on_error:
                raise self._error from error
            self._console.say(f"{self._error}; the run continues, and the next line may succeed")
        for writer in self._writers:
            writer.append(row)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """Gives a picture to the writers.

        Args:
            step: number of updates done.
            name: name of the picture, the same for those that follow each other.
            picture: the picture, RGB.
        """
        for writer in self._writers:
            writer.show(step, name, picture)
