"""Serves an app on a port until it is told to stop, and then answers what it has begun."""

import asyncio
import logging
import math
import signal
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rattn_jax.errors import UsageError
from rattn_jax.serving.limits import Limits


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: the port is taken, or the host is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name such as "a..b"
        text = error.strerror if isinstance(error, OSError) else None
        reason = (text or str(error)).split(" (")[0]
        raise UsageError(
            f"--host={host} --port={port}: {reason}; choose another port, 0 for any free "
            "one, or an address of this machine"
        ) from error


def serve(app: Any, listening: socket.socket, limits: Limits) -> None:
    """Serves until SIGTERM or SIGINT; returns when all requests that have begun are answered."""
    # uvicorn raises the signal again when it is done, which would end the process as a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    make_server(app, limits).run(sockets=[listening])


def make_server(app: Any, limits: Limits) -> uvicorn.Server:
    """A server that logs failures in one line each, and nothing else."""
    logging.getLogger("uvicorn.error").addFilter(_leave_out_traceback)
    config = uvicorn.Config(
        app,
        http=_protocol(limits.read_seconds),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=min(5, math.ceil(limits.read_seconds)),
        timeout_graceful_shutdown=round(limits.read_seconds + limits.answer_seconds),
    )
    return uvicorn.Server(config)


def _leave_out_traceback(record: logging.LogRecord) -> bool:
    """Leaves of an exception only its type: its text may hold parts of a request."""
    if record.exc_info and record.exc_info[0]:
        record.msg, record.args = f"a request failed: {record.exc_info[0].__name__}", ()
        record.exc_info = None
    return True


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """HTTP that ends a connection whose client takes longer, which uvicorn awaits forever.

    It may take so long to send the headers of a request, or the rest of a body that is not read
    after the answer to it; and to receive an answer.
    """

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # writing pauses while any byte is left
            self._timers: dict[str, asyncio.TimerHandle] = {}
            self._start("sending")

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            answered = self.cycle is not None and self.cycle.response_complete
            if self.conn.their_state is not h11.IDLE and not answered:
                self._stop("sending")
            elif "sending" not in self._timers:
                self._start("sending")

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start("receiving")

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop("receiving")

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop("sending")
            self._stop("receiving")

        def _start(self, what: str) -> None:
            # `close` would wait until the client has received the rest.
            self._timers[what] = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self, what: str) -> None:
            if what in self._timers:
                self._timers.pop(what).cancel()

    return Protocol
