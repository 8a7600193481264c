"""The ids under which services such as Weights & Biases know a run: loggers.json in its folder."""

import json
import threading

from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import replace_text

IDS = "loggers.json"


class RunIds:
    """The ids, by the names of the services. Threads may call it.

    Args:
        folder: the run's folder.

    Raises:
        UsageError: the file is damaged.
    """

    def __init__(self, folder: epath.Path) -> None:
        self._path, self._lock = folder / IDS, threading.Lock()
        try:
            self._ids = json.loads(self._path.read_text()) if self._path.exists() else {}
        except ValueError as error:
            raise UsageError(
                f"{self._path} is damaged: remove it, and the loggers begin new runs"
            ) from error

    def get(self, name: str) -> str | None:
        """The id; None if the service does not know the run yet."""
        return self._ids.get(name)

    def keep(self, name: str, run_id: str) -> None:
        """Keeps an id."""
        with self._lock:
            self._ids[name] = run_id
            replace_text(self._path, json.dumps(self._ids) + "\n")
