import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rattn_jax.data.batches import Batch, StreamedData
from rattn_jax.errors import UsageError
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import check_batch_size, make_mesh
from rattn_jax.training import steps
from rattn_jax.training.metrics import compute, count_examples
from rattn_jax.training.state import create_train_state, skip_nonfinite_update
from rattn_jax.training.steps import scan_or_unroll
from tests.compare import assert_close, assert_equal
from tests.tiny import at_step, make_data, make_model, make_state, run_steps

INDICES = np.arange(32, dtype=np.int32).reshape(2, 16)  # two updates of 16 examples


@pytest.fixture(scope="module")
def data():
    return make_data(32)


@pytest.fixture(scope="module")
def one_device(data):
    return run_steps(INDICES, data)


def learned(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


def test_golden(one_device):
    """Says when the numbers of training change. If they should, put the new ones here."""
    assert int(one_device.step) == 2
    assert count_examples(one_device.metrics) == 32
    assert compute(one_device.metrics)["loss"] == pytest.approx(2.34770, rel=1e-4)
    classifier = one_device.params["classifier"]
    assert float(np.abs(classifier["kernel"]).sum()) == pytest.approx(23.28787, rel=1e-4)
    variance = one_device.batch_stats["stage1"]["entry"]["norm1"]["var"]
    assert float(variance.mean()) == pytest.approx(1472.698, rel=1e-4)


def test_one_batch_can_be_learned_by_heart(data):
    state = run_steps(INDICES[:1], data, calls=60)
    assert compute(state.metrics)["error_top1"] < 0.5  # the average over all 60 updates
    last = run_steps(INDICES[:1], data, calls=60)
    assert_equal(learned(state), learned(last))


def test_a_loop_computes_what_single_steps_compute(data, one_device):
    assert_close(
        learned(run_steps(INDICES, data, use_scan=True)), learned(one_device), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("use_scan", [False, True])
def test_steps_are_compiled_as_a_loop_only_if_asked(use_scan):
    """On CPU even a loop over one step would make convolutions slow."""
    sums = partial(scan_or_unroll, jnp.add, use_scan=use_scan)
    jaxpr = jax.make_jaxpr(sums)(jnp.zeros(3), jnp.ones((1, 3)))
    assert ("scan" in str(jaxpr)) == use_scan


def test_batch_norm_of_each_replica_is_its_own_by_default(data, one_device):
    four = run_steps(INDICES, data, devices=4)
    assert count_examples(four.metrics) == 32
    with pytest.raises(AssertionError):
        assert_close(learned(four), learned(one_device), rtol=1e-3, atol=1e-4)


def test_batch_that_devices_cannot_share():
    check_batch_size(12, 4)
    with pytest.raises(UsageError, match="batch_size=10 cannot be split over 4 devices: use a mul"):
        check_batch_size(10, 4)
    check_batch_size(16, 4, accumulate_steps=2)
    with pytest.raises(UsageError, match="over 4 devices in 2 parts each: use a multiple of 8"):
        check_batch_size(12, 4, accumulate_steps=2)


def test_unknown_way_to_map():
    with pytest.raises(UsageError, match="parallel='pjit' is unknown"):
        data_parallel(
            lambda state, data: state, make_mesh(jax.devices()[:1]), "pjit", num_batches=0
        )


def test_parts_of_a_batch_are_accumulated_into_one_update(data):
    rate = 0.05
    found = run_steps(INDICES[:1], data, modules=0, accumulate_steps=2)
    assert count_examples(found.metrics) == 16
    model = make_model(modules=0)
    start = create_train_state(jax.random.key(0), model, optax.identity(), (8, 8, 3))
    start = jax.device_get(start)
    images = (data.images - data.normalization.mean).astype(np.float32)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(params, stats, part):
        logits, updated = model.apply(
            {"params": params, "batch_stats": stats},
            part.images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, part.labels)
        return losses.mean(), updated["batch_stats"]

    halves = [Batch(images[part], data.labels[part]) for part in (INDICES[0, :8], INDICES[0, 8:])]
    first, stats = jax.device_get(gradient(start.params, start.batch_stats, halves[0]))
    second, stats = jax.device_get(gradient(start.params, stats, halves[1]))
    expected = jax.tree.map(
        # The first step of Nesterov's momentum, and the decay.
        lambda p, a, b: p - rate * 1.9 * ((a + b) / 2 + 1e-4 * p),
        start.params,
        first,
        second,
    )
    assert_close(found.params, expected, rtol=1e-3, atol=1e-5)
    assert_close(found.batch_stats, stats, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_parts_of_a_batch_are_accumulated_in_a_loop(data):
    found, looped = (
        run_steps(INDICES[:1], data, modules=0, accumulate_steps=2, use_scan=use_scan)
        for use_scan in (False, True)
    )
    assert_close(learned(looped), learned(found), rtol=1e-3, atol=1e-5)


def test_averages_follow_the_parameters_and_are_what_is_evaluated(data):
    assert run_steps(INDICES[:1], data, modules=0).ema is None
    states = [run_steps(INDICES[:1], data, modules=0, calls=n, ema_decay=0.15) for n in range(4)]
    expected = jax.device_get(learned(states[0]))
    for done, state in enumerate(states[1:]):
        weight = min(0.15, (1 + done) / (10 + done))  # 0.1, 0.15, 0.15
        expected = jax.tree.map(
            lambda old, new, w=weight: w * old + (1 - w) * new,
            expected,
            jax.device_get(learned(state)),
        )
        assert_close(state.ema, expected, rtol=1e-5, atol=1e-6)
        assert state.evaluated is state.ema
    assert states[0].evaluated.keys() == {"params", "batch_stats"}


def test_loss_is_that_of_the_targets(data):
    losses = {
        smoothing: compute(
            run_steps(INDICES[:1], data, modules=0, label_smoothing=smoothing).metrics
        )
        for smoothing in (0.0, 1.0)
    }
    assert losses[0.0]["error_top1"] == losses[1.0]["error_top1"]
    model = make_model(modules=0)
    start = create_train_state(jax.random.key(0), model, optax.identity(), (8, 8, 3))
    images = (data.images[:16] - data.normalization.mean).astype(np.float32)
    apply = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, _ = apply(learned(start), images)
    uniform = -jax.nn.log_softmax(logits).mean()
    assert losses[1.0]["loss"] == pytest.approx(float(uniform), rel=1e-4)


def test_images_are_regularized_with_their_targets(data, monkeypatch):
    seen = []

    def regularize(rngs, images, targets, **options):
        seen.append((rngs.shape, images.shape, images.dtype, targets.shape))
        return 0 * images, 0 * targets

    monkeypatch.setattr(steps, "regularize", regularize)
    # No other test compiles this one.
    state = run_steps(INDICES[:1], data, modules=0, label_smoothing=0.5)
    assert seen[0] == ((16,), (16, 8, 8, 3), jnp.float32, (16, 10))
    assert compute(state.metrics)["loss"] == 0


def test_batches_that_stream_give_the_numbers_of_resident_data(data, one_device):
    rows = Batch(data.images[INDICES], data.labels[INDICES])
    found = run_steps(rows, StreamedData(data.normalization))
    assert_close(learned(found), learned(one_device), rtol=1e-5, atol=1e-6)
    assert compute(found.metrics) == pytest.approx(compute(one_device.metrics), rel=1e-5)


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_one_number_that_is_not_finite_leaves_the_update_out(number, branch):
    old, new = at_step(make_state(), 3), at_step(make_state(), 4)
    bias = new.params["classifier"]["bias"].at[1].set(number)
    params = new.params | {"classifier": new.params["classifier"] | {"bias": bias}}
    broken = dataclasses.replace(new, params=params)
    for go_on, step in ((True, 4), (False, 3)):
        found = skip_nonfinite_update(broken, old, go_on=go_on, branch=branch)
        counts = found.step, found.num_nonfinite, found.nonfinite_step
        assert [int(count) for count in counts] == [step, 1, 3]
        assert_equal(found.params, old.params)
    assert int(skip_nonfinite_update(new, old, go_on=True, branch=branch).num_nonfinite) == 0
