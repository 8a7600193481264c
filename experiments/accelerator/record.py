"""Results of a command with a time limit, written at once.

record = Record(folder, "check", minutes=2)
record.add(network="attention56_cifar", relative_error=1e-6)
if record.seconds_left() < 0: ...
"""

import json
import time
from pathlib import Path
from typing import Any


class Record:
    """Rows of results, printed and appended to FOLDER/NAME.jsonl.

    Args:
        folder: folder for results; it is created.
        name: name of the command.
        minutes: time limit of the command.
    """

    def __init__(self, folder: str, name: str, minutes: float) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{name}.jsonl"
        self._start, self._limit = time.monotonic(), 60 * minutes

    def add(self, **row: Any) -> None:
        """Writes a row, with the seconds since the start of the command."""
        row = {"seconds": round(time.monotonic() - self._start, 1), **row}
        print(json.dumps(row), flush=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def seconds_left(self) -> float:
        """Seconds until the time limit; negative after it."""
        return self._limit - (time.monotonic() - self._start)
