"""CIFAR from archive to arrays: download, preparation, reading, and what can go wrong."""

import functools
import http.server
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from rattn_jax.data import cifar, dataset_spec
from rattn_jax.errors import DataError, UsageError
from tests.data.images import load_dataset

PREPARED = "cifar10/3.0.2"
TRAIN_FILE = "cifar10-train.array_record-00000-of-00001"


def refuse(name: str, data_dir: Path) -> str:
    """The one line with which loading fails."""
    with pytest.raises((UsageError, DataError)) as caught:
        load_dataset(name, str(data_dir))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("place", ["downloads", "downloads/manual"])
def test_from_an_archive_put_by_hand(archive, tmp_path, place, capfd):
    file = archive.put(tmp_path / place)
    dataset = load_dataset(archive.name, str(tmp_path))
    archive.check(dataset)
    assert dataset.num_classes == dataset_spec(archive.name).num_classes
    assert capfd.readouterr() == ("", "")

    # From now on only the prepared folder is needed.
    file.unlink()
    again = load_dataset(archive.name, str(tmp_path))
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    np.testing.assert_array_equal(again.test.labels, dataset.test.labels)


def test_stock_tfds_opens_the_result(archive, tmp_path):
    archive.put(tmp_path / "downloads")
    dataset = load_dataset(archive.name, str(tmp_path))
    stock = tfds.builder(archive.name, data_dir=tmp_path, file_format="array_record")
    assert type(stock).__module__ == "tensorflow_datasets.image_classification.cifar"
    assert stock.info.features.keys() == cifar.BUILDERS[archive.name]().info.features.keys()
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        examples = list(stock.as_data_source(split_name))
        np.testing.assert_array_equal([e["image"] for e in examples], split.images)
        for example in examples:
            index = int(example["id"].decode().removeprefix(f"{split_name}_"))
            label_bytes = [example[key] for key in stock._cifar_info.label_keys]
            np.testing.assert_array_equal(label_bytes, archive.labels[split_name][index])
            np.testing.assert_array_equal(example["image"], archive.images[split_name][index])


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *args):
        """The client hangs up on its first request: it only asks whether the file is there."""


@pytest.fixture
def server(tmp_path):
    """A host that serves `tmp_path`/served."""
    handler = functools.partial(QuietHandler, directory=tmp_path / "served")
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_downloads_on_first_use_and_keeps_the_archive(archive, server, tmp_path, capfd):
    archive.publish(server)
    served = archive.put(tmp_path / "served")
    archive.check(load_dataset(archive.name, str(tmp_path)))
    assert capfd.readouterr() == ("", "")

    # TFDS's download cache serves a second preparation without network.
    served.unlink()
    (tmp_path / archive.name).rename(tmp_path / "away")
    archive.check(load_dataset(archive.name, str(tmp_path)))


def test_server_without_the_file_or_with_another(cifar10_archive, server, tmp_path):
    cifar10_archive.publish(server)
    assert "HTTPError: 404" in refuse("cifar10", tmp_path)
    cifar10_archive.put(tmp_path / "served").write_bytes(b"not what was published")
    assert f"the download of {server}/cifar-10-binary.tar.gz has the wrong checksum" in refuse(
        "cifar10", tmp_path
    )


def test_no_network_and_no_archive(archive, tmp_path):
    (tmp_path / archive.name / "3.0.0").mkdir(parents=True)
    message = refuse(archive.name, tmp_path)
    assert (
        f"{archive.name} is not prepared in {tmp_path} (only version 3.0.0, not 3.0.2)" in message
    )
    assert "cannot be downloaded (ConnectionError" in message
    assert f"fetch http://127.0.0.1:1/{archive.filename} elsewhere" in message
    downloads = tmp_path / "downloads"
    assert f"put {archive.filename} into {downloads} or {downloads}/manual" in message


def test_server_that_never_answers(cifar10_archive, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cifar10_archive.publish(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "cannot be downloaded (ReadTimeout" in refuse("cifar10", tmp_path)


@pytest.mark.parametrize("place", ["downloads", "downloads/manual"])
def test_archive_with_wrong_checksum(cifar10_archive, tmp_path, place):
    file = cifar10_archive.put(tmp_path / place)
    file.write_bytes(cifar10_archive.content[:-1])
    message = refuse("cifar10", tmp_path)
    assert f"the archive {file} has the wrong checksum" in message
    assert "remove it" in message
    cifar10_archive.put(tmp_path / place)
    cifar10_archive.check(load_dataset("cifar10", str(tmp_path)))


def test_damaged_file_in_the_download_cache(cifar10_archive, server, tmp_path):
    cifar10_archive.publish(server)
    cifar10_archive.put(tmp_path / "served")
    load_dataset("cifar10", str(tmp_path))
    (tmp_path / "cifar10").rename(tmp_path / "away")
    (cached,) = (tmp_path / "downloads").rglob("*.tar.gz")
    cached.write_bytes(cached.read_bytes()[:-100])
    assert f"the archive {cached} is damaged (EOFError" in refuse("cifar10", tmp_path)


def test_data_dir_that_cannot_be_written(cifar10_archive, tmp_path):
    (tmp_path / "file").touch()
    message = refuse("cifar10", tmp_path / "file")
    assert f"cannot prepare cifar10 in data_dir {tmp_path}/file (NotADirectoryError" in message
    (tmp_path / "downloads").touch()
    assert "cannot prepare cifar10" in refuse("cifar10", tmp_path)


def test_interrupted_preparation_is_repeated(cifar10_archive, tmp_path, monkeypatch):
    cifar10_archive.put(tmp_path / "downloads")
    generate = cifar.Cifar10._generate_examples

    def interrupted(self, *args):
        yield next(generate(self, *args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cifar.Cifar10, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("cifar10", str(tmp_path))
    assert tqdm_utils._active, "the switch of the progress bars was not put back"
    # A killed process leaves its working folder behind as well.
    leftover = tmp_path / "cifar10/incomplete.ABCDEF_3.0.2"
    leftover.mkdir(parents=True)
    (leftover / TRAIN_FILE).write_bytes(b"half")
    cifar10_archive.check(load_dataset("cifar10", str(tmp_path)))


def test_another_process_prepares_at_the_same_time(cifar10_archive, tmp_path, monkeypatch):
    for place in ("here/downloads", "there/downloads"):
        cifar10_archive.put(tmp_path / place)
    load_dataset("cifar10", str(tmp_path / "there"))
    generate = cifar.Cifar10._generate_examples
    overtaken = []

    def slow(self, *args):
        yield from generate(self, *args)
        if not overtaken:
            overtaken.append((tmp_path / "there" / PREPARED).rename(tmp_path / "here" / PREPARED))

    monkeypatch.setattr(cifar.Cifar10, "_generate_examples", slow)
    cifar10_archive.check(load_dataset("cifar10", str(tmp_path / "here")))
    assert overtaken


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / TRAIN_FILE).read_bytes())
    content[content.index(b"IDAT") + 1000] ^= 1
    (folder / TRAIN_FILE).write_bytes(content)


def cut_the_end(folder: Path) -> None:
    content = (folder / TRAIN_FILE).read_bytes()
    (folder / TRAIN_FILE).write_bytes(content[: len(content) // 2])


def lose_a_file(folder: Path) -> None:
    (folder / TRAIN_FILE).unlink()


def lose_the_info(folder: Path) -> None:
    (folder / "dataset_info.json").unlink()


def garble_the_info(folder: Path) -> None:
    (folder / "dataset_info.json").write_text("{")


def change_the_info(folder: Path, **fields: object) -> None:
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "cifar10/train[0] cannot be evaluated (RuntimeError: Corrupted"),
        (cut_the_end, "cannot read the prepared folder {}"),
        (lose_a_file, "cannot read the prepared folder {}"),
        (lose_the_info, "cannot read the prepared folder {} (FileNotFoundError: dataset_info.json"),
        (garble_the_info, "cannot read the prepared folder {}"),
        (functools.partial(change_the_info, splits=[]), "cannot read the prepared folder {}"),
        (functools.partial(change_the_info, version="3.0.1"), "cannot read the prepared folder {}"),
        (functools.partial(change_the_info, fileFormat="tfrecord"), "{} is prepared as tfrecord"),
    ],
)
def test_damaged_prepared_folder(cifar10_archive, tmp_path, damage, message):
    cifar10_archive.put(tmp_path / "downloads")
    load_dataset("cifar10", str(tmp_path))
    damage(tmp_path / PREPARED)
    assert message.format(tmp_path / PREPARED) in refuse("cifar10", tmp_path)

    # The remedy that the message names works.
    (tmp_path / PREPARED).rename(tmp_path / "away")
    cifar10_archive.check(load_dataset("cifar10", str(tmp_path)))


SCRIPT = """
import socket, sys

def refuse(*args):
    raise AssertionError(f"network: {args}")

socket.socket.connect = socket.getaddrinfo = refuse

from rattn_jax.data import cifar, open_dataset
from tensorflow_datasets.core.download.checksums import compute_url_info

(url,) = (url for url in cifar.Cifar10.url_infos if url.endswith("cifar-10-binary.tar.gz"))
cifar.Cifar10.url_infos = {url: compute_url_info(sys.argv[1])}
assert len(open_dataset("cifar10").train) == 20
assert len(open_dataset("digits").train) == 1437
assert "tensorflow" not in sys.modules
"""


def test_neither_tensorflow_nor_network_nor_output(cifar10_archive, tmp_path):
    """A fresh process, with `data_dir` None: TFDS's default folder."""
    file = cifar10_archive.put(tmp_path / "downloads")
    environment = dict.fromkeys(("TFDS_DATA_DIR", "HOME", "TMPDIR"), str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "the published dataset" not in line] == []
    assert (tmp_path / PREPARED / TRAIN_FILE).exists()
