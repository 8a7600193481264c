"""`rattn predict`: what it reads and what it writes."""

import csv
import io
import json
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from rattn_jax import predict
from rattn_jax.inference import download as downloads
from rattn_jax.inference.download import download
from rattn_jax.inference.image_inputs import ImageInput
from rattn_jax.inference.prediction_table import write
from rattn_jax.inference.stream import predict_each
from rattn_jax.inference.untrusted import TooLargeError
from tests.classifier import make_classifier


@pytest.fixture(scope="module")
def network():
    return make_classifier()


def encoded(seed=0, size=(8, 8), kind="PNG"):
    pixels = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images 0.png to 6.png, of which 3.png is damaged, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for i in range(7):
        (tmp_path / f"{i}.png").write_bytes(b"damaged" if i == 3 else encoded(i))
    return tmp_path


@pytest.fixture
def run(network, monkeypatch, capsys):
    """Runs the command on a text or bytes on standard input; returns status, output and errors."""
    monkeypatch.setattr(predict, "load", lambda *_: network)

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = 0
        try:
            predict.main(["--workdir=run", "--batch-size=3", *arguments])
        except SystemExit as stopped:
            status = stopped.code
        out, err = capsys.readouterr()
        # Without what is printed when it takes long.
        lines = [line for line in err.splitlines() if not line.endswith((" so far", " done"))]
        return status, out, lines

    return run


def test_each_format_holds_the_same(network, photos, run):
    names = [f"{i}.png" for i in (0, 1, 2, 4, 5, 6)]
    expected = network.predict(names)
    best = expected.argmax(axis=1)

    def check(rows, names_found):
        assert names_found == names
        assert [int(row["index_1"]) for row in rows] == best.tolist()
        assert [row["class_1"] for row in rows] == ["abcdefghij"[i] for i in best]
        found = [float(row["probability_1"]) for row in rows]
        np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-6)
        assert list(rows[0])[-1] == "probability_2"

    status, out, err = run("--format=csv", "--top=2", ".")
    assert status == 1
    assert err == [
        "rattn predict: 7 images",
        "rattn predict: 3.png cannot be read: not an image of a known format, or a truncated one",
    ]
    rows = list(csv.DictReader(io.StringIO(out)))
    check(rows, [row["image"] for row in rows])

    assert run("--format=parquet", "--top=2", "--out=found", ".")[0] == 1
    rows = parquet.read_table("found").to_pylist()
    check(rows, [row["image"] for row in rows])

    as_json = json.loads(run("--format=json", "--top=2", ".")[1])
    lines = run("--format=jsonl", "--top=2", ".")[1].splitlines()
    assert as_json == [json.loads(line) for line in lines]
    flat = [
        {f"{key}_{i}": x for i, p in enumerate(row["predictions"], 1) for key, x in p.items()}
        for row in as_json
    ]
    check(flat, [row["image"] for row in as_json])


def test_an_image_on_standard_input(network, run):
    data = encoded(5)
    status, out, err = run("-", "--json", stdin=data)
    assert (status, err) == (0, [])
    row = json.loads(out)
    assert row["image"] == "-"
    assert row["predictions"][0]["index"] == int(network.predict([data]).argmax())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_on_standard_input(photos, run, end):
    (photos / "below").mkdir()
    (photos / "0.png").rename(photos / "below" / "a b.png")
    listed = ["2.png", "none.png", "below", "1.png", "ftp://a/b.png", ""]
    status, out, err = run("-", "--json", stdin=end.join(listed).encode())
    assert status == 1
    found = [json.loads(line)["image"] for line in out.splitlines()]
    assert found == ["2.png", "below/a b.png", "1.png"]
    assert err == [
        "rattn predict: 5 images",
        "rattn predict: none.png cannot be read: No such file or directory",
        "rattn predict: ftp://a/b.png cannot be read: 'ftp://' is no object store",
    ]


def test_an_object_store_whose_library_is_missing(photos, run, monkeypatch):
    def refuse(*_):
        raise ImportError("Please install gcsfs\nto access Google Storage")

    monkeypatch.setattr("etils.epath.backend._FileSystemSpecBackend._get_filesystem", refuse)
    status, out, err = run("-", "--json", stdin=b"0.png\ngs://b/x.jpg\n1.png")
    assert status == 1
    assert [json.loads(line)["image"] for line in out.splitlines()] == ["0.png", "1.png"]
    assert err == [
        "rattn predict: 3 images",
        "rattn predict: gs://b/x.jpg cannot be read: Please install gcsfs to access Google Storage",
    ]
    status, out, err = run("gs://b/x.jpg")
    assert (status, out) == (2, "")
    assert err == [
        "rattn predict: Please install gcsfs to access Google Storage, or give a path on this "
        "machine"
    ]


def test_patterns(photos, run):
    (photos / "below").mkdir()
    (photos / "6.png").rename(photos / "below" / "6.png")
    (photos / "[4].png").write_bytes(encoded())
    (photos / "notes.txt").touch()

    def found(*patterns):
        status, out, err = run(*patterns, "--json")
        assert status == 0
        return [json.loads(line)["image"] for line in out.splitlines()], err

    assert found("[01].png")[0] == ["0.png", "1.png"]
    assert found("[4].png")[0] == ["[4].png"]  # there is such a file
    assert found("**/6*")[0] == ["below/6.png"]
    names, err = found("[bn]*")
    assert names == ["below/6.png"]
    assert err == ["rattn predict: 1 images, left out 1: 1 .txt (such as notes.txt)"]
    status, _, err = run("*.jpg")
    assert status == 2
    assert err == ["rattn predict: *.jpg: the pattern matches no image; correct it"]


def test_a_pattern_names_each_file_once(photos, run):
    """However many of the folders that it matches hold it, by links as well."""
    below = photos / "p" / "a" / "b"
    below.mkdir(parents=True)
    (photos / "0.png").rename(below / "0.png")
    (below / "notes.txt").touch()
    (below / "same.png").symlink_to("0.png")  # another name of the image
    (photos / "p" / "again").symlink_to("a")
    (photos / "p" / "loop").symlink_to(".")
    linked = "linked to what is read already, or lies above (such as again)"

    def found(pattern):
        status, out, err = run(pattern, "--json")
        return status, [json.loads(line)["image"] for line in out.splitlines()], err

    images = ["p/a/b/0.png", "p/a/b/same.png"]
    left_out = "rattn predict: 2 images, left out"
    text = "1 .txt (such as notes.txt)"
    assert found("p/**") == (0, images, [f"{left_out} 3: 2 {linked}, {text}"])
    assert found("p/ag*/**")[1] == [name.replace("p/a", "p/again") for name in images]
    assert found("p/l*/**")[1] == [name.replace("p", "p/loop", 1) for name in images]
    assert found("p/**/b/*") == (0, images, [f"{left_out} 1: {text}"])


def test_output_is_written_as_a_whole_or_not_at_all(photos, run, monkeypatch):
    (photos / "found").write_text("before")

    def fail(*arguments, **keywords):
        yield "0.png", np.full(10, 0.1, np.float32)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predict, "predict_each", fail)
        with pytest.raises(KeyboardInterrupt):
            run("--out=found", "0.png")
    assert (photos / "found").read_text() == "before"
    assert run("--out=found", "0.png") == (0, "", [])
    assert (photos / "found").read_text().startswith("0.png  ")
    status, out, err = run("--out=.", "0.png")
    assert (status, out) == (2, "")
    assert "--out=. is a folder: name a file in it" in err[0]
    status, _, err = run("--out=none/found", "0.png")
    assert status == 2
    assert "--out=none/found cannot be written (No such file or directory)" in err[0]
    assert not list(photos.glob("*.new"))


def test_images_are_read_ahead_of_the_network(network):
    """Not more of them than some batches, and no network waits for all."""
    inputs, read = [ImageInput(str(i), bytes([i])) for i in range(50)], []

    class Slow:
        def decode(self, image):
            read.append(image)
            return np.zeros((8, 8, 3), np.uint8)

        def start(self, images, size):
            assert len(images) == size == 5
            return np.zeros((size, 10))

    found = predict_each(Slow(), inputs, batch_size=5)
    assert next(found)[0] == "0"
    assert 10 <= len(read) <= 25  # two have been started, and three more are read
    assert [name for name, _ in found] == [str(i) for i in range(1, 50)]


class Answers(BaseHTTPRequestHandler):
    """A server of some images, good and bad."""

    def do_GET(self):
        if self.path.startswith("/to"):
            place = {"/to-image": "/image", "/to-ftp": "ftp://127.0.0.1/", "/to-file": "file:///x"}
            self.send_response(302)
            self.send_header("Location", place[self.path])
            self.end_headers()
        elif self.path in ("/image", "/photos/%C3%A9%20%20%FF.jpg?a=%C3%BC&b=%2f"):
            self.send(encoded(7))
        elif self.path == "/large":
            self.send(b"x" * 5000)
        elif self.path == "/text":
            self.send(b"<html>")
        elif self.path == "/slow":
            with suppress(OSError):
                while not self.server.stopping.wait(0.05):  # a byte now and then
                    self.wfile.write(b"H")
        else:
            self.send_error(404)

    def send(self, data):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.stopping = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stopping.set()
        server.shutdown()
        thread.join()


def test_names_with_line_breaks_have_one_row(photos, run):
    """Python 3.11 does not quote a carriage return."""
    (photos / "0.png").rename(photos / "a\rb.png")
    status, out, _ = run("--format=csv", "a\rb.png")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert (status, [row["image"] for row in rows]) == (0, [r"a\rb.png"])
    stream = io.StringIO(newline="")
    write("csv", [("a", [{"class": "x\ry", "index": 0, "probability": 1.0}])], stream, top=1)
    (row,) = csv.DictReader(io.StringIO(stream.getvalue(), newline=""))
    assert row["class_1"] == r"x\ry"


def test_urls_are_fetched_if_asked_for(network, server, run):
    status, out, err = run(f"{server}/image")
    assert (status, out) == (2, "")
    assert len(err) == 1
    assert "is a URL, and none is fetched unasked: add --urls" in err[0]
    urls = [f"{server}/image", f"{server}/none", f"{server}/to-image", f"{server}/text"]
    status, out, err = run("--urls", "--json", *urls)
    assert status == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == [urls[0], urls[2]]
    assert rows[0]["predictions"][0]["index"] == int(network.predict([encoded(7)]).argmax())
    assert err == [
        f"rattn predict: {urls[1]} cannot be read: answers HTTP 404",
        f"rattn predict: {urls[3]} cannot be read: must be JPEG, PNG, WEBP, BMP, GIF, TIFF, and "
        "not truncated",
    ]


def test_urls_with_letters_beyond_ascii(server):
    """Encoded as browsers do it, whether or not some are encoded already."""
    assert download(f"{server}/photos/\u00e9 %20\udcff.jpg?a=\u00fc&b=%2f", 10) == encoded(7)
    assert downloads._encoded("http://\u00e9.org/\u00fc") == "http://\u00e9.org/%C3%BC"


def test_seconds_of_a_download(run):
    status, _, err = run("--urls", "--url-seconds=10000000000", "http://127.0.0.1/")
    assert status == 2
    assert "--url-seconds: 10000000000: must be at most 3600" in err[0]


def test_limits_of_a_download(server):
    with pytest.raises(TooLargeError, match="has more than 4,000 bytes"):
        download(f"{server}/large", 10, max_bytes=4000)
    for path in ("/to-ftp", "/to-file"):
        with pytest.raises(OSError, match=r"not HTTP|answers HTTP 302"):
            download(f"{server}{path}", 10)
    with pytest.raises(OSError, match="answers HTTP 404") as caught:
        download(f"{server}/none", 10)
    assert caught.value.__cause__.fp.closed
    with pytest.raises(TimeoutError, match=r"took longer than 0.3 s"):
        download(f"{server}/slow", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimeoutError, match=r"took longer than 0.2 s"):
            download(url, 0.2)
    assert not downloads.is_url("file:///etc/passwd")


@pytest.mark.parametrize(("scheme", "num_dead"), [("http", 4), ("https", 0)])
def test_connecting_is_within_the_limit_of_a_download(monkeypatch, scheme, num_dead):
    """However many addresses of a host are tried, and with the handshake."""
    really_connect = socket.socket.connect
    waited = []  # what is left for each place, in s

    def connect(self, place):
        waited.append(self.gettimeout())
        time.sleep(min(1.2, self.gettimeout()))
        if place == "dead":
            raise TimeoutError
        really_connect(self, place)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        places = ["dead"] * num_dead + [silent.getsockname()]
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"took longer than 1.5 s"):
            download(f"{scheme}://127.0.0.1/", 1.5)
    assert time.monotonic() - begun >= 1.5
    assert waited == sorted(waited, reverse=True)
    assert sum(waited) <= 1.5 * len(waited)
