"""TensorBoard's event files, written without TensorFlow."""

import contextlib
import io
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from rattn_jax.runs.writer import scalars


class EventFile:
    """Event files in a folder. See `Writer`.

    Args:
        folder: the folder.
        last_step: TensorBoard discards what an earlier process wrote after this step.
    """

    name = "TensorBoard's event file"

    def __init__(self, folder: epath.Path, last_step: int) -> None:
        self._folder, self._last_step = folder, last_step
        self._writer: RecordWriter | None = None

    def open(self) -> bool:
        """See `Writer`."""
        self._open()
        return False

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the numbers of a line as scalars named split/name."""
        summary = summary_pb2.Summary()
        for name, value in scalars(row).items():
            summary.value.add(tag=name, simple_value=value)
        self._add(row["step"], summary=summary)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """Adds a picture."""
        png = io.BytesIO()
        picture.save(png, "PNG")
        image = summary_pb2.Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=3,
            encoded_image_string=png.getvalue(),
        )
        summary = summary_pb2.Summary()
        summary.value.add(tag=name, image=image)
        self._add(step, summary=summary)

    def close(self, *, ended_well: bool) -> None:
        """See `Writer`."""
        del ended_well
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> RecordWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((self._folder / name).open("wb"))
        self._add(0, file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(self._last_step + 1, session_log=start)
        return self._writer

    def _add(self, step: int, **content: Any) -> None:
        writer = self._writer or self._open()
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        try:
            writer.write(event.SerializeToString())
            writer.flush()
        except OSError:
            # A record that was cut short ends the file for its readers: another one begins.
            self._writer = None
            with contextlib.suppress(OSError):
                writer.close()
            raise
        self._last_step = max(self._last_step, step)
