"""Where metrics go: metrics.jsonl, TensorBoard's event files, and the terminal."""

import datetime
import json
import sys
import time
from types import TracebackType
from typing import Any, TextIO

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rattn_jax.parallel import is_main_process
from rattn_jax.run_folder import replace_text


class MetricsFile:
    """metrics.jsonl: one JSON object a line, whole or not at all, none twice.

    Opening it drops a line that a killed process has left unfinished, and the lines of steps
    after `last_step`, which the resumed run is going to write again.

    Attributes:
        rows: the lines, oldest first.
    """

    def __init__(self, path: epath.Path, last_step: int) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        lines = text.split("\n")[:-1]  # what follows the last newline is not a whole line
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.rows = [row for row in self.rows if row["step"] <= last_step]
        kept = "".join(json.dumps(row) + "\n" for row in self.rows)
        if kept != text:
            replace_text(path, kept)

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)


class EventFile:
    """TensorBoard's event files, written without TensorFlow."""

    def __init__(self, folder: epath.Path, last_step: int) -> None:
        self._writer = EventFileWriter(str(folder))
        # TensorBoard forgets what an earlier process has written after this step.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(last_step + 1, session_log=start)

    def append(self, row: dict[str, Any]) -> None:
        """Adds the numbers of a line of metrics as scalars called split/name."""
        summary = summary_pb2.Summary()
        for name, value in row.items():
            if name not in ("step", "split", "time") and value is not None:
                summary.value.add(tag=f"{row['split']}/{name}", simple_value=value)
        self._add(row["step"], summary=summary)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))


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
        self._quiet = quiet
        self._num_train_steps = num_train_steps
        self._batch_size = batch_size
        self._stream = stream or sys.stdout
        self._line_is_open = False

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._write("\n" if self._line_is_open else "", text, "\n")
        self._line_is_open = False

    def show(self, row: dict[str, Any]) -> None:
        """Writes a line of metrics."""
        total = str(self._num_train_steps)
        text = (
            f"step {row['step']:>{len(total)}}/{total}  {row['split']:5}  "
            f"loss {row['loss']:.4f}  error {100 * row['error_top1']:6.2f} %"
        )
        rate = row["images_per_second"]
        if rate is not None:
            text += f"  {rate:,.0f} images/s"
        if row["split"] == "train":
            if rate is not None:
                images_left = (self._num_train_steps - row["step"]) * self._batch_size
                text += f"  {datetime.timedelta(seconds=round(images_left / rate))} left"
            if self._stream.isatty():
                self._write("\r\033[K", text)  # from the line's start, over the last one
                self._line_is_open = True
                return
        self.say(text)

    def _write(self, *texts: str) -> None:
        if not self._quiet:
            print(*texts, sep="", end="", file=self._stream, flush=True)


class Recorder:
    """Writes each line of metrics to all three places; of several processes, the main one does."""

    def __init__(self, folder: epath.Path, last_step: int, progress: Progress) -> None:
        self._progress = progress
        self._writes = is_main_process()
        if self._writes:
            self._metrics_file = MetricsFile(folder / "metrics.jsonl", last_step)
            self._events = EventFile(folder / "tensorboard", last_step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writes:
            self._events.close()

    def newest(self, split: str) -> dict[str, Any] | None:
        """The newest line of the split; None if there is none."""
        rows = self._metrics_file.rows if self._writes else []
        return next((row for row in reversed(rows) if row["split"] == split), None)

    def has(self, split: str, step: int) -> bool:
        """Whether the split has a line of this step."""
        return (self.newest(split) or {}).get("step") == step

    def record(
        self,
        step: int,
        split: str,
        averages: dict[str, float],
        *,
        learning_rate: float,
        images_per_second: float | None,
    ) -> None:
        """Writes a line.

        Args:
            step: number of updates done.
            split: "train", "test" or "validation".
            averages: "loss", "error_top1" and "error_top5".
            learning_rate: rate of the last update.
            images_per_second: throughput; None if it was not measured.
        """
        if not self._writes:
            return
        row = {
            "step": step,
            "split": split,
            **averages,
            "learning_rate": learning_rate,
            "images_per_second": images_per_second,
            "time": time.time(),
        }
        self._metrics_file.append(row)
        self._events.append(row)
        self._progress.show(row)
