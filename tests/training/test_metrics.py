import jax.numpy as jnp
import numpy as np

from rattn_jax.training.metrics import (
    compute,
    count_examples,
    cross_entropy,
    empty,
    measure,
    merge,
)

LOGITS = jnp.asarray(
    [
        [9, 1, 2, 3, 4, 5, 6.0],  # true class first
        [5, 9, 8, 7, 6, 1, 2.0],  # fifth
        [1, 9, 8, 7, 6, 5, 2.0],  # last
        [3, 3, 3, 3, 3, 3, 3.0],  # cannot tell
        [np.nan] * 7,
    ]
)
LABELS = jnp.zeros(5, jnp.int32)


def test_errors():
    errors = [
        (int(sums["error_top1"]), int(sums["error_top5"]))
        for sums in (compute(measure(LOGITS[i : i + 1], LABELS[:1])) for i in range(5))
    ]
    assert errors == [(0, 0), (1, 0), (1, 1), (1, 1), (1, 1)]


def test_cross_entropy():
    expected = [np.log(np.sum(np.exp(np.asarray(row)))) - row[0] for row in LOGITS[:4]]
    np.testing.assert_allclose(cross_entropy(LOGITS[:4], LABELS[:4]), expected, rtol=1e-5)


def test_masked_examples_do_not_count_even_if_they_are_nan():
    mask = jnp.array([True, False, True, False, False])
    masked = measure(LOGITS, LABELS, mask)
    chosen = measure(LOGITS[mask], LABELS[mask])
    assert count_examples(masked) == 2
    assert compute(masked) == compute(chosen)


def test_merging_is_the_same_as_measuring_together():
    a, b = measure(LOGITS[:1], LABELS[:1]), measure(LOGITS[1:4], LABELS[1:4])
    together = compute(measure(LOGITS[:4], LABELS[:4]))
    assert compute(merge(merge(empty(), a), b)) == together


def test_few_classes_have_no_top5_error():
    sums = measure(jnp.array([[1.0, 2, 3, 4, 5]]), jnp.array([0]))
    assert compute(sums)["error_top5"] == 0
