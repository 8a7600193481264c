"""`rattn serve`: what it answers, and what it refuses."""

import asyncio
import base64
import io
import logging
import os
import re
import resource
import struct
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rattn_jax import serve
from rattn_jax.serving import app as service
from rattn_jax.serving import server
from rattn_jax.serving.app import create_app
from rattn_jax.serving.batcher import Batcher
from rattn_jax.serving.limits import Limits
from rattn_jax.serving.server import open_port
from tests.classifier import make_classifier

LIMITS = Limits(batch_size=2, max_bytes=20_000, read_seconds=1)


@pytest.fixture(scope="module")
def network():
    return make_classifier()


@pytest.fixture(scope="module")
def app(network):
    return create_app(network, LIMITS)


@pytest.fixture
def client(app):
    with TestClient(app) as client:
        yield client


def encoded(seed=0, side=8, kind="PNG"):
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def png_of(width, height):
    """A PNG file of some bytes that says that it has so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_answers_are_the_network_s(network, client):
    data = encoded(seed=1, side=20, kind="JPEG")
    (expected,) = network.predict([data])
    found = client.post("/predict?top=3", content=data).json()["predictions"]
    assert [p["index"] for p in found] == np.argsort(-expected)[:3].tolist()
    assert [p["class"] for p in found] == ["abcdefghij"[p["index"]] for p in found]
    probabilities = [p["probability"] for p in found]
    np.testing.assert_allclose(probabilities, np.sort(expected)[:-4:-1], atol=1e-6)

    answer = client.post("/explain?top=3", content=data).json()
    assert [p["index"] for p in answer["predictions"]] == [p["index"] for p in found]
    (mask,) = answer["masks"]
    image = network.decode(data)
    mean = network.attention(image[None])[1]["stage1/module1"].mask[0].mean(axis=-1)
    assert mask["module"] == "stage1/module1"
    assert mean.min() - 0.01 <= mask["lowest"] <= mean.min()  # rounded outwards
    assert mean.max() <= mask["highest"] <= mean.max() + 0.01
    picture = base64.b64decode(mask["picture"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(picture)).size == (96, 96)


@pytest.mark.parametrize("address", ["/predict", "/explain"])
def test_images_are_turned_upright(client, address):
    pixels = np.random.RandomState(2).randint(0, 256, (8, 8, 3)).astype(np.uint8)

    def answer(array, orientation):
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(array).save(buffer, "PNG", exif=exif)
        return client.post(address, content=buffer.getvalue()).json()

    upright = answer(np.rot90(pixels, -1), 1)
    assert answer(pixels, 6) == upright  # 6: turn it to the right
    assert answer(pixels, 1) != upright


def test_what_is_beside(app):
    assert TestClient(app).get("/ready").status_code == 503  # the network is not at work yet
    with TestClient(app) as client:
        check_what_is_beside(client)


def check_what_is_beside(client):
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready"}
    paths = client.get("/openapi.json").json()["paths"]
    assert list(paths) == ["/predict", "/explain", "/health", "/ready"]
    assert {"413", "415", "422", "503", "504"} <= set(paths["/predict"]["post"]["responses"])
    page = client.get("/")
    assert not re.search(r"(https?:|src=|href=|//\w)", page.text)  # nothing from elsewhere
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    ids=range(9),
    argvalues=[
        (b"", 415, "must be JPEG, PNG"),
        (b"SECRET", 415, "must be JPEG, PNG"),
        (encoded(kind="PPM"), 415, "must be JPEG, PNG"),
        (encoded()[:-40], 422, "is damaged"),
        (b"SECRET" * 5000, 413, "more than 20,000 bytes"),
        (iter([b"SECRET"] * 5000), 413, "more than 20,000 bytes"),  # chunked
        (png_of(6000, 5000), 413, "6000x5000 pixels: must be at most 25,000,000"),
        (png_of(20_000, 1), 413, "a side 16,384"),
        (png_of(60_000, 60_000), 413, "pixels"),
    ],
)
def test_refused_images(client, body, status, words, caplog):
    answer = client.post("/predict", content=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "SECRET" not in answer.text + caplog.text


def test_refused_requests(client):
    def error(answer):
        return answer.status_code, answer.json()["error"]

    answer = client.post("/predict", files={"image": encoded()})
    assert error(answer) == (415, "the body must be the image itself: curl --data-binary @FILE")
    status, text = error(client.post("/predict?top=SECRET", content=encoded()))
    assert (status, text[:24], "SECRET" in text) == (422, "top: Input should be a v", False)
    assert error(client.get("/etc/passwd"))[0] == 404
    assert error(client.get("/predict"))[0] == 405


def test_too_many_requests_and_late_answers(network):
    begun, released = threading.Event(), threading.Event()

    class Stuck(type(network)):
        def predict_decoded(self, images, size):
            if images.any():
                begun.set()
                assert released.wait(20)
            return np.zeros((len(images), 10), np.float32)

    stuck = Stuck(**vars(make_classifier()))
    limits = Limits(batch_size=1, queue=1, answer_seconds=5)
    with TestClient(create_app(stuck, limits)) as client:
        late = []
        thread = threading.Thread(
            target=lambda: late.append(client.post("/predict", content=encoded()))
        )
        thread.start()
        assert begun.wait(20)
        refused = client.post("/predict", content=encoded())
        thread.join()
        released.set()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "too many requests: try again"}
        assert late[0].status_code == 504
        assert late[0].json() == {"error": "no answer within 5 s: try again"}


def test_failure_says_nothing_of_the_request(app, network, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("SECRET")

    monkeypatch.setattr(service, "check_header", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", content=encoded())
        assert client.get("/ready").status_code == 200
    assert answer.status_code == 500
    assert answer.json() == {"error": "the service has failed to answer this request"}
    try:
        fail()
    except ValueError:
        record = logging.LogRecord("uvicorn.error", 40, "", 0, "failed", (), sys.exc_info())
    assert server._leave_out_traceback(record)
    assert logging.Formatter().format(record) == "a request failed: ValueError"


@pytest.mark.parametrize(("num_cpus", "num_decoders"), [(1, 1), (3, 3), (64, 4)])
def test_decoders_are_few(app, monkeypatch, num_cpus, num_decoders):
    """Each may take 0.6 GB, however many CPUs there are."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64 if sys.platform == "linux" else num_cpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(num_cpus), raising=False)
    monkeypatch.setattr("rattn_jax.parallel.cpus._CPU_MAX", Path("/no/limit"))
    sizes = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers, *arguments):
            sizes.append(max_workers)
            super().__init__(max_workers, *arguments)

    monkeypatch.setattr(service, "ThreadPoolExecutor", Pool)
    with TestClient(app):
        assert sizes == [num_decoders]


def test_batches_are_what_has_gathered():
    calls, begun, released = [], threading.Event(), threading.Event()

    def compute(images, size):
        calls.append((len(images), size))
        begun.set()
        assert released.wait(20)
        if 13 in images:
            raise ValueError("thirteen")
        return [int(image[0]) for image in images]

    async def main():
        batcher = Batcher(compute, (1, 2, 4))
        task = asyncio.create_task(batcher.run())

        async def submit(i):
            return await batcher.submit(np.array([i]))

        first = asyncio.create_task(submit(0))
        assert await asyncio.to_thread(begun.wait, 20)
        rest = [asyncio.create_task(submit(i)) for i in range(1, 8)]
        await asyncio.sleep(0)
        rest[1].cancel()  # its caller has given up
        released.set()
        assert await first == 0
        assert await asyncio.gather(*(rest[:1] + rest[2:])) == [1, 3, 4, 5, 6, 7]
        with pytest.raises(ValueError, match="thirteen"):
            await submit(13)
        assert await submit(14) == 14
        task.cancel()

    asyncio.run(main())
    assert calls == [(1, 1), (3, 4), (3, 4), (1, 1), (1, 1)]
    sizes = Batcher(compute, (1, 4, 16))
    chosen = [sizes._choose_size(count) for count in (1, 2, 3, 4, 5, 8, 9, 16, 40)]
    assert chosen == [1, 1, 4, 4, 4, 4, 16, 16, 16]
    assert Limits(batch_size=16).batch_sizes == (1, 4, 16)
    assert Limits(batch_size=1).batch_sizes == (1,)
    assert Limits(batch_size=20).batch_sizes == (1, 4, 16, 20)


def test_command(network, monkeypatch, capsys):
    served = []
    monkeypatch.setattr(serve, "load", lambda *_, **__: network)
    monkeypatch.setattr(server, "serve", lambda *arguments: served.append(arguments))
    serve.main(["--workdir=run", "--port=0", "--batch-size=2"])
    ((_, listening, limits),) = served
    assert re.fullmatch(r"serving on http://127\.0\.0\.1:\d+/\n", capsys.readouterr().out)
    assert listening.fileno() == -1  # closed at the end
    assert limits == Limits(batch_size=2)

    # What is wrong is said before the minutes of compiling.
    monkeypatch.setattr(serve, "load", None)

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            serve.main(["--workdir=run", "--batch-size=1", *arguments])
        assert stopped.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert f"--port={port}: Address already in use; choose another port" in refused(
            f"--port={port}"
        )
    assert "--host=a..b --port=0: encoding with 'idna' codec failed; choose" in refused(
        "--host=a..b", "--port=0"
    )
    assert "--port: 65536: must be at most 65535" in refused("--port=65536")
    monkeypatch.setitem(sys.modules, "rattn_jax.serving.app", None)
    assert "which is not installed: pip install -e '.[serve]'" in refused()


@pytest.mark.slow
def test_memory_stays_small(client):
    attacks = [b"x" * 19_000, encoded()[:-40], png_of(6000, 5000), b"x" * 50_000, encoded(side=60)]

    def send(count):
        for i in range(count):
            client.post("/predict", content=attacks[i % len(attacks)])
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = send(50)
    assert send(1000) - before < 50e6
