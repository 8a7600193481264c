from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.errors import UsageError
from rattn_jax.metrics import count_examples, summarize
from rattn_jax.parallel import check_batch_size, make_mesh, map_replicas
from rattn_jax.steps import _fold
from tests.tiny import make_data, run_steps

INDICES = np.arange(32, dtype=np.int32).reshape(2, 16)  # two updates of 16 examples


@pytest.fixture(scope="module")
def data():
    return make_data(32)


@pytest.fixture(scope="module")
def one_device(data):
    return run_steps(INDICES, data)


def learned(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_golden(one_device):
    """Says when the numbers of training change. If they should, put the new ones here."""
    assert int(one_device.step) == 2
    assert count_examples(one_device.metrics) == 32
    assert summarize(one_device.metrics)["loss"] == pytest.approx(2.34770, rel=1e-4)
    classifier = one_device.params["classifier"]
    assert float(np.abs(classifier["kernel"]).sum()) == pytest.approx(23.28787, rel=1e-4)
    variance = one_device.batch_stats["stage1"]["entry"]["norm1"]["var"]
    assert float(variance.mean()) == pytest.approx(1472.698, rel=1e-4)


def test_one_batch_can_be_learned_by_heart(data):
    state = run_steps(INDICES[:1], data, calls=60)
    assert summarize(state.metrics)["error_top1"] < 0.5  # the average over all 60 updates
    last = run_steps(INDICES[:1], data, calls=60)
    assert_equal(learned(state), learned(last))


def test_a_loop_computes_what_single_steps_compute(data, one_device):
    assert_close(
        learned(run_steps(INDICES, data, loop=True)), learned(one_device), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("loop", [False, True])
def test_steps_are_compiled_as_a_loop_only_if_asked(loop):
    """On CPU even a loop over one step would make convolutions slow."""
    sums = partial(_fold, jnp.add, loop=loop)
    jaxpr = jax.make_jaxpr(sums)(jnp.zeros(3), jnp.ones((1, 3)))
    assert ("scan" in str(jaxpr)) == loop


@pytest.mark.parametrize("sync", [False, True])
def test_pmap_and_shard_map_give_the_same_numbers(data, sync):
    states = [
        run_steps(INDICES, data, devices=2, mode=mode, sync=sync) for mode in ("shard_map", "pmap")
    ]
    assert_equal(*states)


def test_synchronised_batch_norm_makes_devices_invisible(data, one_device):
    four = run_steps(INDICES, data, devices=4, sync=True)
    assert_close(learned(four), learned(one_device), rtol=1e-4, atol=1e-5)
    assert summarize(four.metrics) == pytest.approx(summarize(one_device.metrics), rel=1e-4)
    assert count_examples(four.metrics) == 32


def test_batch_norm_of_each_replica_is_its_own_by_default(data, one_device):
    four = run_steps(INDICES, data, devices=4)
    assert count_examples(four.metrics) == 32
    with pytest.raises(AssertionError):
        assert_close(learned(four), learned(one_device), rtol=1e-3, atol=1e-4)


def test_batch_that_devices_cannot_share():
    check_batch_size(12, 4)
    with pytest.raises(UsageError, match="batch_size=10 cannot be split over 4 devices: use a mul"):
        check_batch_size(10, 4)


def test_unknown_way_to_map():
    with pytest.raises(UsageError, match="parallel='pjit' is unknown"):
        map_replicas(lambda state, data: state, make_mesh(jax.devices()[:1]), "pjit")
