"""A place to which metrics and pictures of a run go, besides metrics.jsonl: TensorBoard, ...

writer = Background(EventFile(folder / "tensorboard", last_step), history, console.say)
writer.append(row)
writer.end(ended_well=True)
writer.join(time.monotonic() + 20)
"""

import collections
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from PIL import Image

from rattn_jax.errors import UsageError

_MAX_WAITING = 100  # calls that wait when a picture is left out


class _Call(NamedTuple):
    """A call of a writer, and whether it is made again when it has failed."""

    function: Callable[[], None]
    is_kept: bool


class Writer(Protocol):
    """A place to which a run's metrics and pictures go. All calls may raise any error.

    Attributes:
        name: its name in messages.
    """

    name: str

    def open(self) -> bool:
        """Opens the place; returns whether it is new and lacks the run's earlier lines.

        It is called again if it has failed.

        Raises:
            UsageError: the user can put it right, as an account that is missing.
        """
        ...

    def append(self, row: Mapping[str, Any]) -> None:
        """Takes a line of metrics.jsonl."""
        ...

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """Takes a picture, drawn after `step` updates."""
        ...

    def close(self, *, ended_well: bool) -> None:
        """Takes nothing more in this process; the run may go on in another one."""
        ...


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by names such as "test/loss"."""
    return {
        f"{row['split']}/{name}": value
        for name, value in row.items()
        if name not in ("step", "split", "time") and value is not None
    }


class Background:
    """Calls a writer from a thread of its own, which neither ends nor delays the run.

    The first failure is printed. What was not taken is tried again with the next line. Pictures are
    left out while the writer fails or does not keep up.

    Args:
        writer: the writer, not opened yet.
        history: lines of metrics.jsonl, which a new place gets first.
        say: prints a line.
    """

    def __init__(
        self, writer: Writer, history: Sequence[Mapping[str, Any]], say: Callable[[str], None]
    ) -> None:
        self._writer, self._history, self._say = writer, list(history), say
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()  # None: nothing more
        self._waiting: collections.deque[_Call] = collections.deque()
        self._is_open = self._fails = self._has_failed = False
        self._refusal: UsageError | None = None  # of the first attempt to open the writer
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait_until_open(self, seconds: float) -> None:
        """Waits until the writer is open, has failed, or the time is over.

        Raises:
            UsageError: the user has to put something right.
        """
        if not self._tried.wait(seconds):
            self._tried.set()
            self._report("no answer yet")
        if self._refusal is not None:
            raise self._refusal

    def append(self, row: Mapping[str, Any]) -> None:
        """Hands over a line of metrics.jsonl."""
        self._queue.put(self._line(row))

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """Hands over a picture."""
        if not self._fails and self._queue.qsize() < _MAX_WAITING:
            self._queue.put(_Call(partial(self._writer.show, step, name, picture), False))

    def end(self, *, ended_well: bool) -> None:
        """Says that nothing more comes; `join` waits until all was taken."""
        self._queue.put(_Call(partial(self._writer.close, ended_well=ended_well), True))
        self._queue.put(None)

    def join(self, deadline: float) -> None:
        """Waits for what is left, until a time of `time.monotonic`."""
        self._thread.join(max(deadline - time.monotonic(), 0))
        if self._refusal is None and (self._thread.is_alive() or self._fails):
            self._say(f"{self._writer.name} lacks lines of metrics: metrics.jsonl has every one")

    def _line(self, row: Mapping[str, Any]) -> _Call:
        return _Call(partial(self._writer.append, row), True)

    def _work(self) -> None:
        self._try()
        while self._refusal is None and (call := self._queue.get()):
            self._waiting.append(call)
            self._try()

    def _try(self) -> None:
        """Opens the writer if it is not open, and hands over what is waiting."""
        try:
            if not self._is_open:
                is_new = self._writer.open()
                earlier = self._history if is_new else []
                self._waiting.extendleft(map(self._line, earlier[::-1]))
                self._is_open = True
            while self._waiting:
                self._waiting[0].function()
                self._waiting.popleft()
            self._fails = False
        except Exception as error:  # of any library, or of the network
            self._fails = True
            if self._is_open and not self._waiting[0].is_kept:
                self._waiting.popleft()
            if isinstance(error, UsageError) and not self._tried.is_set():
                self._refusal = error
            else:
                self._report(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        self._tried.set()

    def _report(self, reason: str) -> None:
        """Prints a failure, once."""
        if not self._has_failed:
            self._has_failed = True
            self._say(
                f"{self._writer.name} fails ({reason}): the run goes on, metrics.jsonl has every "
                "line, and what is missing is sent when it answers again"
            )
