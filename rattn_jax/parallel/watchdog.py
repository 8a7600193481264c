"""Ends a job of several processes that makes no progress.

    with closing(Watchdog(seconds=60)) as watchdog:
        watchdog.enter("training", step)
        ...
        watchdog.enter("evaluation", step)

JAX detects a dead process by missing heartbeats. A process that hangs still sends heartbeats, and
the others would wait for it in a collective forever.
"""

import contextlib
import os
import sys
import threading
import time
from typing import Any

import jax
from jax._src import distributed  # where Orbax finds the store of keys as well; no public name

_FACTOR, _FIRST_FACTOR = 3.0, 60.0
_KEYS = "rattn_jax/progress"


class Watchdog:
    """Ends the process if a phase of the work takes far too long.

    The limit is `seconds` plus three times the longest duration of that phase so far: phases of
    one name must be about equally long. The first time, when functions may be compiled, it is 60
    times `seconds`. With one process there is none.

    Args:
        seconds: see above.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._longest: dict[str, float] = {}
        self._part: str | None = None
        self._since = time.monotonic()
        self._step = 0
        self._over = threading.Event()
        if jax.process_count() > 1:
            threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Stops watching."""
        self._over.set()

    def enter(self, part: str | None, step: int) -> None:
        """Starts a phase of the work, and ends the previous one.

        Args:
            part: its name; None for a phase that always gets the limit of a first time, and
                interrupts the previous one, which says nothing about how long that takes.
            step: number of updates done.
        """
        now = time.monotonic()
        if self._part is not None and part is not None:
            took = now - self._since
            self._longest[self._part] = max(took, self._longest.get(self._part, 0.0))
        self._part = None  # the thread may look in between
        self._since, self._step = now, step
        self._part = part

    def asked(self, step: int) -> None:
        """Records that `step` updates have been dispatched."""
        self._step = step

    def limit(self, part: str | None) -> float:
        """Current limit of a phase, in seconds."""
        longest = self._longest.get(part) if part else None
        if longest is None:
            return _FIRST_FACTOR * self._seconds
        return self._seconds + _FACTOR * longest

    def _watch(self) -> None:
        client: Any = distributed.global_state.client
        index = jax.process_index()
        said = ""
        while not self._over.wait(min(1.0, self._seconds / 10)):
            part, since = self._part, self._since
            now = f"{self._step}, {part}"
            if now != said:
                with contextlib.suppress(Exception):  # the store may be gone; the time still runs
                    client.key_value_set(f"{_KEYS}/{index}", now, allow_overwrite=True)
                    said = now
            limit, took = self.limit(part), time.monotonic() - since
            if took > limit:
                time.sleep(1.0)  # lets the others report their state
                try:
                    places = client.key_value_dir_get(_KEYS)
                except Exception:
                    places = [(f"{_KEYS}/{index}", now)]
                print(_complaint(index, took, limit, places), file=sys.stderr, flush=True)
                os._exit(1)


def _complaint(index: int, took: float, limit: float, places: list[tuple[str, str]]) -> str:
    """A line that says which processes wait, and which one is farthest behind."""
    where = sorted((int(key.rpartition("/")[2]), value) for key, value in places)
    steps = {process: int(value.split(",")[0]) for process, value in where}
    behind = [process for process, step in steps.items() if step == min(steps.values())]
    culprits = "it may be any of them"
    if len(behind) < len(steps):
        culprits = "process " + ", ".join(map(str, behind)) + " hangs"
    shown = "; ".join(f"process {process}: {value}" for process, value in where)
    return (
        f"process {index}: no progress for {took:.0f} s, and the limit is {limit:.0f} s: "
        f"{culprits} (updates dispatched and current phase: {shown}); run again to resume from the "
        "latest checkpoint, or raise process_timeout_seconds"
    )
