"""Where metrics go: metrics.jsonl, TensorBoard's event files, and the console."""

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from rattn_jax.errors import SaveError
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.runs.console import Console
from rattn_jax.runs.files import is_remote, replace_text


class MetricsLog:
    """metrics.jsonl: one JSON object per line, without torn or repeated lines.

    Opening it drops an unfinished line of a killed process, and all lines after `last_step`, which
    the resumed run will write again.

    Attributes:
        history: the lines, oldest first.
    """

    def __init__(self, path: epath.Path, last_step: int) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        lines = text.split("\n")[:-1]  # the text after the last newline is an unfinished line
        self.history: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.history = [row for row in self.history if row["step"] <= last_step]
        kept = "".join(json.dumps(row) + "\n" for row in self.history)
        if kept != text or not path.exists():
            replace_text(path, kept)
        self._is_behind = False  # the last line was not written completely

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: it could not be written; the next call tries again.
        """
        self.history.append(row)
        # Object stores cannot append, and a full disk may have cut a line short.
        whole = is_remote(self._path) or self._is_behind
        self._is_behind = True
        if whole:
            replace_text(self._path, "".join(json.dumps(row) + "\n" for row in self.history))
        else:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self._is_behind = False


class EventFile:
    """A TensorBoard event file, written without TensorFlow."""

    def __init__(self, folder: epath.Path, last_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._writer = RecordWriter(self._file)
        self._add(0, file_version="brain.Event:2")
        # TensorBoard then discards what an earlier process wrote after this step.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(last_step + 1, session_log=start)

    def append(self, row: dict[str, Any]) -> None:
        """Adds the numbers of a line as scalars named split/name."""
        summary = summary_pb2.Summary()
        for name, value in row.items():
            if name not in ("step", "split", "time") and value is not None:
                summary.value.add(tag=f"{row['split']}/{name}", simple_value=value)
        self._add(row["step"], summary=summary)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())


class MetricWriter:
    """Writes each line of metrics to file, TensorBoard and console, in the main process.

    Args:
        folder: the run's folder.
        last_step: later lines are dropped, because their steps will be done again.
        console: prints the lines for the user.
        stop_on_error: raise SaveError when a line cannot be written; otherwise report it, write
            it together with the next line, and raise at the end if there is none.
    """

    def __init__(
        self,
        folder: epath.Path,
        last_step: int,
        console: Console,
        *,
        stop_on_error: bool = True,
    ) -> None:
        self._folder, self._console = folder, console
        self._stop_on_error = stop_on_error
        self._error: SaveError | None = None  # of the last line
        self._writes = is_main_process()
        if self._writes:
            self._log = MetricsLog(folder / "metrics.jsonl", last_step)
            self._events = EventFile(folder / "tensorboard", last_step)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._writes:
            with contextlib.suppress(OSError):
                self._events.close()
        if self._error is not None and kind is None:
            raise self._error

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
            self._events.append(row)
            self._error = None
        except OSError as error:
            self._error = SaveError(
                f"metrics of step {step} could not be written to {self._folder} "
                f"({error.strerror}): free space or repair the folder"
            )
            if self._stop_on_error:
                raise self._error from error
            self._console.say(f"{self._error}; the run continues, and the next line may succeed")
