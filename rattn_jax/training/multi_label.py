"""Evaluation of images that may have several classes: mean average precision and F1.

scored = begin(sums, num_slots=64, num_classes=20)     # once for each call of the compiled step
scored = add(scored, logits, targets, mask, axis_name)     # once for each batch
sums, scores = split(scored)
measure(scores)            # {"mean_average_precision": ..., "f1_macro": ..., "f1_micro": ...}

Errors and mistakes are those of the class that is nearest to being right: `nearest_labels`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rattn_jax.config.schema import OF_SIGMOID, SIGMOID
from rattn_jax.training import eval_sums
from rattn_jax.training.eval_sums import EvalSums
from rattn_jax.training.losses import training_losses

Array = jax.Array


class ScoredSums(NamedTuple):
    """Sums over examples, and what the batches of the latest call have given.

    Attributes:
        sums: see `EvalSums`.
        scores: probabilities of the classes, float32 [slots, K].
        targets: 1 for the classes that an image has, uint8 [slots, K].
        mask: bool [slots], False for examples that do not count.
    """

    sums: EvalSums
    scores: Array
    targets: Array
    mask: Array


class Scores(NamedTuple):
    """Probabilities and classes of examples, on the host: see `ScoredSums`."""

    scores: np.ndarray
    targets: np.ndarray


def nearest_labels(logits: Array, targets: Array) -> Array:
    """Of each image the class it has that has the largest logit, int32 [B].

    Where an image has none of the classes, that with the largest logit, which counts as no error.

    Args:
        logits: float32 [B, K].
        targets: 1 for the classes that an image has, otherwise 0, [B, K].
    """
    has_one = jnp.any(targets > 0, axis=1, keepdims=True)
    among = jnp.where((targets > 0) | ~has_one, logits, -jnp.inf)
    return jnp.argmax(among, axis=1).astype(jnp.int32)


def begin(sums: EvalSums, num_slots: int, num_classes: int) -> ScoredSums:
    """Sums so far, and room for a call with batches of `num_slots` examples in all.

    All calls of an evaluation have the same number.
    """
    return ScoredSums(
        sums,
        jnp.zeros((num_slots, num_classes), jnp.float32),
        jnp.zeros((num_slots, num_classes), jnp.uint8),
        jnp.zeros(num_slots, bool),
    )


def add(
    scored: ScoredSums, logits: Array, targets: Array, mask: Array, axis_name: str
) -> ScoredSums:
    """Adds a batch.

    Args:
        scored: sums over the previous batches, the same on every replica.
        logits: logits of this replica's shard of the batch, float32 [B, K].
        targets: uint8 [B, K].
        mask: bool [B], False for examples that do not count.
        axis_name: mapped axis of the replicas, whose shards follow each other.
    """
    scores = jax.nn.sigmoid(logits)
    losses = training_losses(logits, targets.astype(jnp.float32), loss=SIGMOID)
    nearest, has_class = nearest_labels(logits, targets), jnp.any(targets > 0, axis=1)
    first = scored.sums.num_slots % len(scored.mask)

    def put(whole: Array, part: Array) -> Array:
        batch = lax.all_gather(part, axis_name, tiled=True)
        return lax.dynamic_update_slice_in_dim(whole, batch, first, axis=0)

    return ScoredSums(
        eval_sums.add(scored.sums, logits, nearest, mask, axis_name, losses, scores, has_class),
        put(scored.scores, scores),
        put(scored.targets, targets),
        put(scored.mask, mask),
    )


def split(sums: EvalSums | ScoredSums) -> tuple[EvalSums, list[Scores]]:
    """The sums, and what a call has given of the examples that count, on the host."""
    if not isinstance(sums, ScoredSums):
        return sums, []
    scores, targets, mask = (np.asarray(x.addressable_data(0)) for x in sums[1:])
    return sums.sums, [Scores(scores[mask], targets[mask])]


def measure(found: Sequence[Scores]) -> dict[str, float]:
    """Mean average precision and F1 at a probability of 0.5, from 0 to 1; NaN of NaN.

    Of no calls, as with the softmax loss, there is nothing.

    The mean of the average precision, and that of F1 ("macro"), is over the classes of which there
    are examples; "micro" counts all decisions together, those on other classes as well.
    """
    if not found:
        return {}
    from sklearn.metrics import average_precision_score  # takes a second to import

    scores, targets = (np.concatenate(values) for values in zip(*found, strict=True))
    occurs = targets.any(axis=0)
    if not np.isfinite(scores).all() or not occurs.any():
        return dict.fromkeys(OF_SIGMOID, math.nan)
    decided, there = scores > 0.5, targets > 0
    # F1 is twice the hits among what was decided and what is there.
    hits, sums = np.sum(decided & there, axis=0), np.sum(decided, axis=0) + np.sum(there, axis=0)
    values = (
        average_precision_score(targets[:, occurs], scores[:, occurs], average="macro"),
        np.mean(2 * hits[occurs] / sums[occurs]),
        2 * np.sum(hits) / np.sum(sums),
    )
    return dict(zip(OF_SIGMOID, map(float, values), strict=True))
