"""Sums of an evaluation, the same for any batch size: metrics, confusions, calibration, mistakes.

sums = empty(num_classes=10)
sums = add(sums, logits, labels, mask, axis_name)    # once for each batch
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rattn_jax.report.confusion import MAX_CLASSES
from rattn_jax.report.mistakes import Mistakes
from rattn_jax.report.scores import NUM_BINS, Calibration
from rattn_jax.training import metrics
from rattn_jax.training.metrics import Metrics

Array = jax.Array

NUM_MISTAKES = 1_000  # to remember


class EvalSums(NamedTuple):
    """Sums over examples.

    Attributes:
        metrics: see `metrics.py`.
        confusion: examples by true and predicted class, int32 [K, K]; [0, 0] if K > MAX_CLASSES.
            The entries off the diagonal are the top-1 errors of `metrics`.
        calibration: see `Calibration`.
        mistakes: the most confident mistakes.
        num_slots: slots of the batches so far, padding included; int32 scalar.
    """

    metrics: Metrics
    confusion: Array
    calibration: Calibration
    mistakes: Mistakes
    num_slots: Array


def empty(num_classes: int) -> EvalSums:
    """Sums over zero examples."""
    size = num_classes if num_classes <= MAX_CLASSES else 0
    none, counts = jnp.zeros(NUM_MISTAKES, jnp.int32), jnp.zeros(NUM_BINS, jnp.int32)
    return EvalSums(
        metrics.empty(),
        jnp.zeros((size, size), jnp.int32),
        Calibration(counts, counts, jnp.zeros(NUM_BINS, jnp.float32)),
        Mistakes(jnp.full(NUM_MISTAKES, -1, jnp.float32), none, none, none),
        jnp.zeros((), jnp.int32),
    )


def add(
    sums: EvalSums,
    logits: Array,
    labels: Array,
    mask: Array,
    axis_name: str,
    losses: Array | None = None,
    probabilities: Array | None = None,
    has_class: Array | None = None,
) -> EvalSums:
    """Adds a batch to the sums.

    Args:
        sums: sums over the previous batches, the same on every replica.
        logits: logits of this replica's shard of the batch, float32 [B, K].
        labels: int32 [B].
        mask: bool [B], False for examples that do not count.
        axis_name: mapped axis of the replicas, whose shards follow each other.
        losses: see `metrics.measure`.
        probabilities: of the classes, float32 [B, K]; None: those of a softmax.
        has_class: bool [B], False for examples that have none of the classes: they are no errors
            of `metrics`, are not among the confusions, and no prediction of them is right; None:
            all have one.
    """
    prediction = predict(logits, labels)
    in_classes = mask if has_class is None else mask & has_class
    confusion = sums.confusion
    if confusion.size:
        counts = jnp.zeros_like(confusion).at[labels, prediction].add(in_classes.astype(jnp.int32))
        confusion = confusion + lax.psum(counts, axis_name)
    shares = jax.nn.softmax(logits) if probabilities is None else probabilities
    probability = jnp.max(shares, axis=1)
    is_right = in_classes & (prediction == labels)
    calibration = _calibrate(probability, is_right, mask & jnp.isfinite(probability))
    share = labels.shape[0]
    first = sums.num_slots + lax.axis_index(axis_name) * share
    counts_as_mistake = mask & (prediction != labels) & jnp.isfinite(probability)
    found = Mistakes(
        jnp.where(counts_as_mistake, probability, -1),
        first + jnp.arange(share, dtype=jnp.int32),
        labels,
        prediction,
    )
    found = jax.tree.map(
        lambda x: lax.all_gather(x, axis_name, tiled=True),
        _most_confident(found, min(share, NUM_MISTAKES)),
    )
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), sums.mistakes, found)
    return EvalSums(
        metrics.merge(sums.metrics, metrics.measure(logits, labels, mask, axis_name, losses)),
        confusion,
        jax.tree.map(jnp.add, sums.calibration, lax.psum(calibration, axis_name)),
        _most_confident(both, NUM_MISTAKES),
        sums.num_slots + lax.psum(share, axis_name),
    )


def predict(logits: Array, labels: Array) -> Array:
    """The predicted classes, int32 [B]: the true one exactly where `measure` counts no error.

    If several classes share the largest logit, a wrong one of them is predicted.

    Args:
        logits: float32 [B, K].
        labels: int32 [B].
    """
    is_true = labels[:, None] == jnp.arange(logits.shape[1])
    others = jnp.where(is_true, -jnp.inf, logits)
    true_logit = jnp.take_along_axis(logits, labels[:, None], axis=1)
    is_right = jnp.all(is_true | (logits < true_logit), axis=1)
    return jnp.where(is_right, labels, jnp.argmax(others, axis=1)).astype(jnp.int32)


def _calibrate(probability: Array, is_right: Array, mask: Array) -> Calibration:
    """Sums over the shard of a replica; arrays [B]."""
    edges = jnp.arange(1, NUM_BINS, dtype=jnp.float32) / NUM_BINS
    bins = jnp.sum(probability[:, None] > edges, axis=1)

    def add_up(values: Array) -> Array:
        none = jnp.zeros(NUM_BINS, values.dtype)
        return none.at[bins].add(jnp.where(mask, values, 0))

    is_right = is_right.astype(jnp.int32)
    return Calibration(add_up(jnp.ones_like(is_right)), add_up(is_right), add_up(probability))


def _most_confident(mistakes: Mistakes, count: int) -> Mistakes:
    # Among equal values top_k takes the first, so the result does not depend on the devices.
    _, chosen = lax.top_k(mistakes.probability, count)
    return jax.tree.map(lambda x: x[chosen], mistakes)
