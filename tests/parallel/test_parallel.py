"""One step on many devices: the same numbers, and no more communication than it needs."""

import re

import jax
import numpy as np
import pytest

import rattn_jax.training.step_functions
from rattn_jax.data.batches import Batch, StreamedData
from rattn_jax.errors import UsageError
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import make_mesh, replicate, wait_on_cpu
from rattn_jax.train import train_and_evaluate
from rattn_jax.training.metrics import compute, count_examples
from tests.compare import assert_close
from tests.tiny import compile_steps, make_config, make_data
from tests.training.test_steps import learned

INDICES = np.arange(80, dtype=np.int32).reshape(5, 16) % 48  # five updates of 16 examples


@pytest.fixture(scope="module")
def data():
    return make_data(48)


def train(data, rows, *, devices=8, modules=0, **options):
    """State after the updates, each in a call of its own."""
    step, state = compile_steps(devices=devices, modules=modules, learning_rate=0.01, **options)
    mesh = make_mesh(jax.devices()[:devices])
    data = replicate(data, mesh)
    for row in rows:
        state = wait_on_cpu(step(state, data, jax.tree.map(lambda x: x[None], row)), mesh)
    return state


@pytest.fixture(scope="module")
def in_sync(data):
    return train(data, INDICES, sync=True)


def assert_same_numbers(found, expected):
    """Of five updates in float32; by another program, whose sums may round otherwise."""
    assert_close(learned(found), learned(expected), rtol=1e-5, atol=1e-5)
    assert compute(found.metrics) == pytest.approx(compute(expected.metrics), rel=1e-5)


def test_pmap_and_shard_map_give_the_same_numbers(data):
    """With synchronised batch norm, too: see the streams below."""
    assert_same_numbers(train(data, INDICES, mode="pmap"), train(data, INDICES))


def test_synchronised_batch_norm_makes_devices_invisible(data):
    in_sync = train(data, INDICES, sync=True, modules=1)
    assert_same_numbers(in_sync, train(data, INDICES, devices=1, modules=1))
    assert count_examples(in_sync.metrics) == 80


def test_jax_without_pmap_is_told_in_a_line(monkeypatch):
    monkeypatch.delattr(jax, "pmap")
    with pytest.raises(UsageError, match=r"parallel='pmap': JAX .* has no pmap any more; choose"):
        data_parallel(abs, make_mesh(jax.devices()[:1]), "pmap", num_batches=1)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_streams_feed_eight_devices(data, mode, in_sync):
    rows = [Batch(data.images[row], data.labels[row]) for row in INDICES]
    found = train(StreamedData(data.normalization), rows, sync=True, mode=mode)
    assert_same_numbers(found, in_sync)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_calls_on_the_devices_of_a_cpu_are_waited_for(data, tmp_path, monkeypatch, devices):
    mesh = make_mesh(jax.devices()[:devices])
    step, state = compile_steps(devices=devices, modules=0)
    state = wait_on_cpu(step(state, replicate(data, mesh), INDICES[:1]), mesh)
    assert all(leaf.is_ready() for leaf in jax.tree.leaves(state))

    def wait(tree, mesh):
        waited.append(type(tree).__name__)
        return wait_on_cpu(tree, mesh)

    waited = []
    monkeypatch.setattr(rattn_jax.training.step_functions, "wait_on_cpu", wait)
    config = make_config(modules=0, num_train_steps=4, eval_every_steps=4)
    train_and_evaluate(config, tmp_path, jax.devices()[:devices])
    assert waited[:4] == ["TrainState"] * 4
    assert set(waited[4:]) == {"EvalSums"}


def all_reduces(data, **options):
    """Numbers of arrays in each all-reduce of the compiled step, in ascending order."""
    step, state = compile_steps(devices=8, modules=0, **options)
    text = step.lower(state, data, INDICES[:1]).compile().as_text()
    lines = [line for line in text.splitlines() if re.search(r" all-reduce(-start)?\(", line)]
    assert not re.search(r" (all-gather|all-to-all|collective-permute|reduce-scatter)", text)
    return sorted(len(re.findall(r"[fs]32\[", line.split(" all-reduce")[0])) for line in lines)


def test_an_update_has_one_all_reduce_of_everything_and_one_of_a_count(data):
    _, state = compile_steps(devices=8, modules=0)
    arrays = len(jax.tree.leaves(state.params)) + len(jax.tree.leaves(state.batch_stats))
    # Gradients, statistics and the three sums of the metrics; they share their count of examples.
    assert all_reduces(data) == [1, arrays + 3]


def test_synchronised_batch_norm_adds_three_all_reduces_for_each_layer_at_most(data):
    _, state = compile_steps(devices=8, modules=0, sync=True)
    norms = len(jax.tree.leaves(state.batch_stats)) // 2
    found = all_reduces(data, sync=True)
    assert len(found) <= 3 * norms + 2
