"""Downloads an image over HTTP, within limits of size and time.

download("https://example.org/a.jpg", seconds=10)    # bytes
"""

import http.client
import re
import socket
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import Any

from rattn_jax.inference.untrusted import MAX_BYTES, TooLargeError, check_header

SCHEMES = ("http://", "https://")
MAX_SECONDS = 3600  # that a download may be given; a timer of Python takes 9e9
_HOST = re.compile(r"\w+://[^/?#]*")


def is_url(text: str) -> bool:
    """Whether a text is a URL of HTTP."""
    return text.lower().startswith(SCHEMES)


def download(url: str, seconds: float, max_bytes: int = MAX_BYTES) -> bytes:
    """The image at a URL, which is checked like one of a stranger.

    Redirections are followed to URLs of HTTP alone. Which hosts are reached is the caller's choice:
    private addresses are not refused.

    Args:
        url: of HTTP. Spaces and letters beyond ASCII are percent-encoded; "%" stays.
        seconds: until the last byte must be there. Only the system's lookup of the host's name,
            which nothing ends, may take longer.
        max_bytes: the most that is read.

    Raises:
        OSError: it cannot be reached, answers with an error, or takes longer.
        BadImageError: it is too large, or no image.
    """
    deadline = _Deadline(seconds)
    opener = urllib.request.build_opener(_Redirects, _Handler(deadline))
    request = urllib.request.Request(_encoded(url), headers={"User-Agent": "rattn_jax"})
    try:
        with deadline, opener.open(request) as response:
            data = bytes(response.read(max_bytes + 1))
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the page that comes with it
        if deadline.has_passed:
            raise TimeoutError(f"took longer than {seconds:g} s") from error
        code, reason = getattr(error, "code", None), getattr(error, "reason", error)
        raise OSError(f"answers HTTP {code}" if code else str(reason)) from error
    if deadline.has_passed:  # a connection that ends early looks like the end of the data
        raise TimeoutError(f"took longer than {seconds:g} s")
    if len(data) > max_bytes:
        raise TooLargeError(f"has more than {max_bytes:,} bytes")
    check_header(data)
    return data


def _encoded(url: str) -> str:
    """The URL as it is sent. The name of a host is encoded in another way, by the connection."""
    match = _HOST.match(url)
    start = match.end() if match else 0
    # As urllib does with redirections.
    return url[:start] + urllib.parse.quote(
        url[start:], safe=string.punctuation, errors="surrogateescape"
    )


class _Deadline:
    """Ends connections when time is up, also those of servers that send a byte now and then."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end_all)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for connection in self._connections:
            connection.close()

    @property
    def has_passed(self) -> bool:
        return time.monotonic() >= self._end

    def connect(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Like `socket.create_connection`, but a host's addresses share the time that is left."""
        error = OSError("the host has no address")
        for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            try:
                return self._connect(*found)
            except OSError as failure:
                error = failure
        raise error

    def _connect(self, family: int, kind: int, protocol: int, _: str, place: Any) -> socket.socket:
        connection = socket.socket(family, kind, protocol)
        try:
            seconds = self._end - time.monotonic()
            if seconds <= 0:
                raise TimeoutError
            connection.settimeout(seconds)
            connection.connect(place)
            self._connections.append(connection.dup())  # TLS takes the socket itself away
        except OSError:
            connection.close()
            raise
        if self.has_passed:
            self._end_all()
        return connection

    def _end_all(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens connections that the deadline watches."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._watched(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._watched(http.client.HTTPSConnection), req)

    def _watched(self, kind: type[http.client.HTTPConnection]) -> Any:
        deadline = self._deadline

        # mypy knows no class whose base is a variable.
        class Watched(kind):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                self._create_connection = deadline.connect
                super().connect()

        return Watched


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Refuses FTP, which urllib takes, and does not read the page that comes with a redirection."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()
        if not is_url(newurl):
            raise urllib.error.URLError("redirects to what is not HTTP")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
