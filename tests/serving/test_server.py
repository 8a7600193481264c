"""`rattn serve`: which clients it waits for, and how it ends."""

import io
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from rattn_jax.inference.network import Classifier
from rattn_jax.serving.app import create_app
from rattn_jax.serving.limits import Limits
from rattn_jax.serving.server import make_server, open_port
from tests.classifier import make_classifier

LIMITS = Limits(batch_size=2, max_bytes=20_000, read_seconds=1, answer_seconds=20)
PAGE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def app():
    return create_app(make_classifier(), LIMITS)


@contextmanager
def running(app, limits):
    """Yields the address of a server, and the server."""
    with open_port("127.0.0.1", 0) as listening:
        # Its connections inherit this: little is sent that the client has not read.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        web = make_server(app, limits)
        thread = threading.Thread(target=web.run, args=([listening],))
        thread.start()
        while not web.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname(), web
        finally:
            web.should_exit = True
            thread.join()


def receive(connection):
    """All that comes until the server closes."""
    data = b""
    while part := connection.recv(65_536):
        data += part
    return data


def test_slow_clients_are_not_waited_for(app):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    with running(app, LIMITS) as (address, _):
        for sent, answer in (
            (b"", b""),
            (head, b""),  # the headers do not end
            (head + b"Content-Length: 9\r\n\r\nGIF", b"HTTP/1.1 408 "),
            (head + b"Content-Length: 99999\r\n\r\nGIF", b"HTTP/1.1 413 "),
            (
                head + b"Transfer-Encoding: chunked\r\n\r\n9000\r\n" + b"x" * 30_000,
                b"HTTP/1.1 413 ",
            ),
        ):
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(sent)
                assert receive(connection).startswith(answer)


@contextmanager
def slow_connection(address):
    """Yields a connection whose client takes little that it has not read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.settimeout(20)
        connection.connect(address)
        yield connection


@pytest.mark.parametrize("num_at_once", [1, 1000])
def test_clients_that_do_not_read_are_not_waited_for(app, num_at_once):
    """Neither where few bytes of the last answer are left, nor where more answers follow."""
    with running(app, LIMITS) as (address, web), slow_connection(address) as connection:
        connection.sendall(PAGE)
        assert connection.recv(1)
        (server_side,) = web.server_state.connections
        while not server_side.transport.get_write_buffer_size():
            connection.sendall(num_at_once * PAGE)
            time.sleep(0.01)
        until = time.monotonic() + 5
        while web.server_state.connections or web.server_state.tasks:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_clients_that_read_slowly_are_answered(app):
    with running(app, LIMITS) as (address, _), slow_connection(address) as connection:
        last = PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        connection.sendall(199 * PAGE + last)
        begun, data = time.monotonic(), b""
        while part := connection.recv(8192):
            data += part
            time.sleep(0.02)
        assert time.monotonic() - begun > 2 * LIMITS.read_seconds
    assert data.count(b"HTTP/1.1 200 ") == 200
    assert data.endswith(b"</script>\n")


def test_requests_that_have_begun_are_answered():
    begun = threading.Event()

    class Slow(Classifier):
        def predict_decoded(self, images, size):
            if images.any():
                begun.set()
                time.sleep(0.3)
            return np.full((len(images), 10), 0.1, np.float32)

    slow = create_app(Slow(**vars(make_classifier())), LIMITS)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    body = buffer.getvalue()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running(slow, LIMITS) as (address, web):
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(head + body)
            assert begun.wait(20)
            web.should_exit = True  # what SIGTERM does
            answer = receive(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"probability"' in answer
