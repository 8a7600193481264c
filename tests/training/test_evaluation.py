from functools import partial

import jax
import numpy as np
import pytest

from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, make_mesh, replicate, wait_on_cpu
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.report import confusion
from rattn_jax.report.scores import NUM_BINS
from rattn_jax.training import eval_sums, evaluation
from rattn_jax.training.metrics import compute, measure

CLASSES, BATCHES, BATCH = 5, 6, 16


@pytest.fixture(scope="module", autouse=True)
def _few_mistakes():
    """Fewer than there are, so that some are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_sums, "NUM_MISTAKES", 24)
        yield


@pytest.fixture(scope="module")
def batches():
    """Logits [6, 16, 5] with ties, NaN and infinities, labels, and a mask."""
    generator = np.random.RandomState(0)
    logits = generator.normal(size=(BATCHES, BATCH, CLASSES)).astype(np.float32) * 3
    logits[0, :4] = 1.0
    logits[1, 0, 2], logits[1, 1] = np.nan, np.nan
    logits[1, 2, 1] = -np.inf
    labels = generator.randint(0, CLASSES, (BATCHES, BATCH)).astype(np.int32)
    return logits, labels, generator.uniform(size=labels.shape) < 0.8


def sum_over_processes(batches, devices, mode="shard_map"):
    """Sums over all batches, in two calls of three."""
    mesh = make_mesh(jax.devices()[:devices])

    def add(sums, nothing, logits, labels, mask):
        del nothing
        for batch in zip(logits, labels, mask, strict=True):
            sums = eval_sums.add(sums, *batch, DATA_AXIS)
        return sums

    function = data_parallel(add, mesh, mode, num_batches=3)
    sums = replicate(eval_sums.empty(CLASSES), mesh)
    for half in (slice(0, 3), slice(3, 6)):
        parts = (values[half] for values in batches)
        sums = wait_on_cpu(function(sums, replicate(np.zeros(()), mesh), *parts), mesh)
    return jax.device_get(sums)


@pytest.fixture(scope="module")
def sums(batches):
    return sum_over_processes(batches, devices=1)


def test_what_is_off_the_diagonal_are_the_errors(batches, sums):
    logits, labels, mask = (x.reshape(-1, *x.shape[2:]) for x in batches)
    wrong = sums.confusion.sum() - np.trace(sums.confusion)
    errors = compute(jax.jit(measure)(logits, labels, mask))["error_top1"]
    assert wrong / mask.sum() == pytest.approx(errors)
    for true in range(CLASSES):
        assert sums.confusion[true].sum() == (mask & (labels == true)).sum()
    clear = mask & (np.sort(logits, axis=1)[:, -1] > np.sort(logits, axis=1)[:, -2])
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (labels[clear], logits[clear].argmax(axis=1)), 1)
    assert (sums.confusion >= expected).all()
    assert clear.sum() > 0.8 * mask.sum()


def test_mistakes_are_the_most_confident_of_all(batches, sums):
    logits, labels, mask = (x.reshape(-1, *x.shape[2:]) for x in batches)
    shares = np.asarray(jax.nn.softmax(logits))
    confidence = np.where(mask & (logits.argmax(axis=1) != labels), shares.max(axis=1), -1)
    confidence[[0, 1, 2, 3]] = np.where(mask[:4], 0.2, -1)  # ties are mistakes
    confidence[~np.isfinite(confidence)] = -1
    expected = np.argsort(-confidence, kind="stable")[: eval_sums.NUM_MISTAKES]
    found = sums.mistakes
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(found.probability, confidence[expected], rtol=1e-6)
    np.testing.assert_array_equal(found.label, labels[expected])
    assert (found.prediction != found.label).all()
    sure = found.probability > 0.21
    np.testing.assert_array_equal(
        found.prediction[sure], logits[found.indices[sure]].argmax(axis=1)
    )


def test_probabilities_are_counted_in_bins(batches, sums):
    logits, labels, mask = (x.reshape(-1, *x.shape[2:]) for x in batches)
    probability = np.asarray(jax.nn.softmax(logits)).max(axis=1)
    mask = mask & np.isfinite(probability)
    tied = np.sort(logits, axis=1)[:, -1] == np.sort(logits, axis=1)[:, -2]
    is_right = (logits.argmax(axis=1) == labels) & ~tied
    edges = np.linspace(0, 1, NUM_BINS + 1, dtype=np.float32)
    bins = np.searchsorted(edges[1:-1], probability[mask])
    for found, values in zip(
        sums.calibration, (np.ones_like(probability), is_right, probability), strict=True
    ):
        np.testing.assert_allclose(found, np.bincount(bins, values[mask], NUM_BINS), rtol=1e-6)
    assert sums.calibration.total.sum() == mask.sum() < len(mask)


@pytest.mark.parametrize(("devices", "mode"), [(4, "shard_map"), (8, "pmap")])
def test_devices_make_no_difference(batches, sums, devices, mode):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        sum_over_processes(batches, devices, mode),
        sums,
    )


def test_unused_places_of_few_mistakes(batches):
    logits, _, mask = batches
    one = np.zeros_like(mask)
    one[2, 3] = True
    least = logits.argmin(axis=2).astype(np.int32)
    found = sum_over_processes((logits, least, one), 1).mistakes
    assert found.indices[0] == 2 * BATCH + 3
    assert (found.probability >= 0).sum() == 1


def test_speed_leaves_compiling_out(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))

    class Steps:
        eval_compile_seconds = 1.0

        def empty_sums(self):
            return eval_sums.empty(CLASSES)

        def evaluate(self, state, sums, batch):
            self.eval_compile_seconds += 7
            ones = measure(jax.nn.one_hot(batch, CLASSES), batch)
            return sums._replace(metrics=ones, confusion=np.eye(CLASSES))

    class Loader:
        def eval(self, split):
            yield np.arange(CLASSES)

        def num_examples(self, split):
            return CLASSES

    result = evaluation.evaluate(Steps(), Loader(), None, "test", PreemptionGuard(1))
    assert result.seconds == 10 - 7
    assert result.numbers()["balanced_accuracy"] == 1
    assert np.isnan(result.numbers()["ece"])


def test_confusions_of_very_many_classes_are_not_counted():
    assert eval_sums.empty(confusion.MAX_CLASSES).confusion.shape == (2_000, 2_000)
    assert eval_sums.empty(confusion.MAX_CLASSES + 1).confusion.size == 0
