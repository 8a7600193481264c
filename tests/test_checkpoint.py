import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.checkpoint import Checkpoints
from rattn_jax.optimizer import make_optimizer, make_schedule
from rattn_jax.parallel import make_mesh, replicate
from rattn_jax.train_state import create_train_state
from tests.tiny import make_model


@pytest.fixture(scope="module")
def state():
    optimizer = make_optimizer("sgd", make_schedule("step", learning_rate=0.1, num_train_steps=9))
    return create_train_state(jax.random.key(1), make_model(), optimizer, (8, 8, 3))


def at_step(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def test_newest_is_restored_on_the_devices_asked_for(state, tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.newest_step() is None
        for step in (1, 2, 3):
            checkpoints.save(at_step(state, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    for devices in (1, 4):
        target = jax.tree.map(jnp.zeros_like, replicate(state, make_mesh(jax.devices()[:devices])))
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            restored = checkpoints.restore_newest(target)
        jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 3))
        assert {len(leaf.devices()) for leaf in jax.tree.leaves(restored)} == {devices}


def test_step_that_is_saved_already_is_not_saved_again(state, tmp_path):
    for _ in range(2):
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            checkpoints.save(at_step(state, 1))


def test_leftovers_of_a_killed_save_are_removed(state, tmp_path):
    leftover = tmp_path / "7.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "part").write_text("half")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.newest_step() is None
    assert not leftover.exists()


def test_nothing_to_restore(state, tmp_path):
    with (
        Checkpoints(tmp_path / "none", keep=2) as checkpoints,
        pytest.raises(FileNotFoundError, match=r"no checkpoint in .*none"),
    ):
        checkpoints.restore_newest(state)
