"""A run in gs://, its checkpoints as well."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from rattn_jax.runs.checkpoint_files import all_steps, read_newest
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.files import absolute
from rattn_jax.train import train_and_evaluate
from tests.bucket import serve_bucket
from tests.compare import assert_equal
from tests.devices import ONE
from tests.tiny import at_step, make_config, make_state


@pytest.fixture(scope="session")
def bucket():
    # TensorStore asks for the address once.
    with serve_bucket() as bucket:
        yield bucket


def test_runs_go_on_in_the_store(bucket, tmp_path):
    for steps in (3, 6):
        config = make_config(num_train_steps=steps, report=True)
        state = train_and_evaluate(config, "gs://bucket/run", ONE)
    straight = train_and_evaluate(make_config(num_train_steps=6, report=True), tmp_path, ONE)
    assert_equal(state, straight)
    run = epath.Path("gs://bucket/run")
    names = {path.name for path in run.iterdir()}
    assert names == {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert all_steps(run / "checkpoints") == all_steps(tmp_path / "checkpoints")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [(row["step"], row["split"]) for row in map(json.loads, lines)]
    assert [step for step, split in steps if split == "train"] == [1, 2, 3, 4, 5, 6]
    assert [step for step, split in steps if split == "test"] == [2, 3, 4, 6]


def test_what_a_killed_save_left_is_removed(bucket):
    folder, state = epath.Path("gs://bucket/killed"), make_state()
    with Checkpointer(folder, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state, step))
    (folder / "2/commit_success.txt").unlink()  # which Orbax writes last
    said = []
    assert read_newest(folder, said.append)[0] == 1
    with Checkpointer(folder, keep=2, say=said.append) as checkpoints:
        assert [path.name for path in folder.iterdir()] == ["1"]
        checkpoints.restore_latest(state)
        checkpoints.save(at_step(state, 2))
    assert all_steps(folder) == [1, 2]
    assert said == []


def test_damage_is_found_and_put_aside(bucket):
    folder, state = epath.Path("gs://bucket/damaged"), make_state()
    with Checkpointer(folder, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state, step))
    (record,) = [path for path in bucket.store if path.endswith("damaged/2/record/metadata")]
    bucket().pipe_file(record, b"{}")
    said = []
    with Checkpointer(folder, keep=2, say=said.append) as checkpoints:
        restored = checkpoints.restore_latest(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 1))
    assert sorted(path.name for path in folder.iterdir()) == ["1", "damaged-2"]
    assert "checkpoint gs://bucket/damaged/2 is damaged" in said[0]


def test_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(absolute("gs://bucket/run")) == "gs://bucket/run"
    assert str(absolute("~/run")) == "/home/me/run"
    assert str(absolute("run")) == f"{tmp_path}/run"
    assert str(absolute("//run/x")) == "/run/x"
