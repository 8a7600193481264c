"""A workdir in an object store, played by fsspec's file system in memory.

Checkpoints are the exception: TensorStore writes them with a client of its own.
"""

import json

import fsspec
import jax
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

import rattn_jax.train
from rattn_jax.paths import absolute
from rattn_jax.train import train_and_evaluate
from tests.tiny import make_config

ONE = jax.devices()[:1]


@pytest.fixture
def bucket():
    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store: dict = {}  # noqa: RUF012 (this is how fsspec keeps it)
        pseudo_dirs = [""]  # noqa: RUF012

    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    return Bucket


def test_every_file_goes_through_the_store(bucket, tmp_path, monkeypatch):
    opened = []

    def local_checkpoints(directory, *arguments, **keywords):
        opened.append(str(directory))
        return checkpoints(tmp_path / "checkpoints", *arguments, **keywords)

    checkpoints = rattn_jax.train.Checkpoints
    monkeypatch.setattr(rattn_jax.train, "Checkpoints", local_checkpoints)
    for steps in (3, 6):
        train_and_evaluate(make_config(num_train_steps=steps, report=True), "gs://bucket/run", ONE)
    assert opened == ["gs://bucket/run/checkpoints"] * 2
    names = {name.removeprefix("gs://bucket/run/").split("/")[0] for name in bucket.store}
    assert names == {
        *("config.json", "mask_health.jsonl", "metrics.jsonl"),
        *("normalization.npz", "parameters.txt", "report.html", "tensorboard"),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}
    lines = (epath.Path("gs://bucket/run") / "metrics.jsonl").read_text().splitlines()
    steps = [(row["step"], row["split"]) for row in map(json.loads, lines)]
    assert [step for step, split in steps if split == "train"] == [1, 2, 3, 4, 5, 6]
    assert [step for step, split in steps if split == "test"] == [2, 3, 4, 6]


def test_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(absolute("gs://bucket/run")) == "gs://bucket/run"
    assert str(absolute("~/run")) == "/home/me/run"
    assert str(absolute("run")) == f"{tmp_path}/run"
