"""Damaged checkpoints: noticed, named, put aside; the newest whole one is used."""

import random
import shutil

import jax
import numpy as np
import pytest

from rattn_jax.errors import DataError
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.runs.checkpointer import Checkpointer
from tests.tiny import at_step, make_state

# What TensorStore had begun to read when the damage was noticed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpointer(folder, keep=2) as checkpoints:
        for step in (4, 6):
            checkpoints.save(at_step(state, step))
    return folder


def damage(folder, chance):
    """One random fault in one random file; what it was."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = chance.choice(files)
    kind = chance.choice(["flip", "truncate", "delete", "zero"])
    data = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(data[: chance.randrange(max(len(data), 1))])
    elif data:
        place = chance.randrange(len(data))
        length = 1 if kind == "flip" else chance.randint(1, 64)
        for i in range(place, min(place + length, len(data))):
            data[i] = data[i] ^ (1 << chance.randrange(8)) if kind == "flip" else 0
        path.write_bytes(data)
    return f"{kind} {path.relative_to(folder)}"


@pytest.mark.fault("damage in one file of the newest checkpoint", fast=6, counted=200)
def test_damage(state, saved, tmp_path, case, outcome):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    what, said = damage(folder / "6", random.Random(case)), []
    with Checkpointer(folder, keep=2, say=said.append) as checkpoints:
        restored = checkpoints.restore_latest(state)
        step = int(restored.step)
        jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, step))
        if step == 6:
            assert said == [], what
            outcome("harmless: all arrays as they were saved")
            return
        assert step == 4, what
        assert f"checkpoint {folder / '6'} is damaged (" in said[0], what
        assert all_steps(folder) == [4]
        checkpoints.save(at_step(state, 6))
    assert all_steps(folder) == [4, 6]
    assert (folder / "damaged-6").is_dir()
    outcome("named, put aside; the one before was used")


@pytest.mark.fault("junk, empty or half-deleted checkpoint folders", fast=3, counted=30)
def test_junk(state, saved, tmp_path, case, outcome):
    folder, chance = tmp_path / "checkpoints", random.Random(case)
    shutil.copytree(saved, folder)
    name = chance.choice(["5", "7", "999", "12345678901"])
    kind = ("empty", "junk", "half")[case % 3]
    if kind == "half":
        shutil.copytree(folder / "6", folder / name)
        files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        for path in chance.sample(files, len(files) // 2):
            path.unlink()
    else:
        (folder / name).mkdir()
        if kind == "junk":
            (folder / name / "state").write_bytes(chance.randbytes(100))
    with Checkpointer(folder, keep=2, say=lambda text: None) as checkpoints:
        assert int(checkpoints.restore_latest(state).step) == 6
        checkpoints.save(at_step(state, 8))
    with Checkpointer(folder, keep=2) as checkpoints:
        assert int(checkpoints.restore_latest(state).step) == 8
    outcome("never chosen, and the next save was made")


@pytest.mark.fault("all checkpoints damaged", fast=1, counted=5)
def test_none_is_left(state, saved, tmp_path, case, outcome):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for step in (4, 6):
        path = folder / str(step) / "record/metadata"
        path.write_bytes(path.read_bytes()[: 10 * case])
    before = sorted(path.name for path in folder.iterdir())
    with (
        pytest.raises(DataError, match=r"no checkpoint in .* can be read, 2 are damaged"),
        Checkpointer(folder, keep=2, say=lambda text: None) as checkpoints,
    ):
        checkpoints.restore_latest(state)
    assert sorted(path.name for path in folder.iterdir()) == before
    outcome("refused, nothing was overwritten")
