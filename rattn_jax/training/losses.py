"""The training loss, and the factors of the classes in it: `config.class_weights`.

weights = class_weights("balanced", DatasetSpec(2, 8, 100, 10, counts=(90, 10)))    # (0.556, 5.0)
training_losses(logits, targets, weights)
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rattn_jax.config.schema import BALANCED, SIGMOID, SOFTMAX
from rattn_jax.data.dataset import DatasetSpec
from rattn_jax.errors import UsageError

Array = jax.Array


def class_weights(
    chosen: str | tuple[float, ...] | None, spec: DatasetSpec
) -> tuple[float, ...] | None:
    """The factor of each class, in the order of the classes; None: all are 1.

    Balanced factors are those of scikit-learn's `compute_class_weight`, whose mean over the
    training examples is 1; a class without any has 0, and does not count.

    Args:
        chosen: as in the config.
        spec: of the dataset; balanced factors need its counts.

    Raises:
        UsageError: a number of factors that is not the number of classes.
    """
    if chosen == BALANCED:
        counts = spec.counts
        share = sum(counts) / sum(1 for count in counts if count)
        return tuple(share / count if count else 0.0 for count in counts)
    if chosen is None or isinstance(chosen, str):
        return None
    if len(chosen) != spec.num_classes:
        raise UsageError(
            f"config.class_weights has {len(chosen)} numbers: must have one for each of the "
            f"{spec.num_classes} classes, in their order; correct it"
        )
    return tuple(map(float, chosen))


def label_sets(loss: str, spec: DatasetSpec) -> np.ndarray | None:
    """The sets of classes that labels stand for, uint8 [labels, K]; None: labels are classes.

    Args:
        loss: as in the config.
        spec: of the dataset.

    Raises:
        UsageError: images of several classes with a loss for one.
    """
    if loss == SIGMOID:
        return (
            np.eye(spec.num_classes, dtype=np.uint8) if spec.label_sets is None else spec.label_sets
        )
    if spec.label_sets is not None:
        raise UsageError(
            "config.loss='softmax' is for one class an image, and images of this dataset may have "
            "several: use --config.loss=sigmoid, or another column of labels"
        )
    return None


def set_targets(labels: Array, sets: np.ndarray, smoothing: float) -> Array:
    """Target probabilities of the classes, each by itself, float32 [B, K].

    Args:
        labels: int32 [B].
        sets: see `label_sets`.
        smoothing: fraction by which each target is drawn to 1/2.
    """
    return jnp.asarray(sets)[labels] * (1 - smoothing) + smoothing / 2


def training_losses(
    logits: Array,
    targets: Array,
    weights: tuple[float, ...] | None = None,
    loss: str = SOFTMAX,
) -> Array:
    """Cross entropy of each example in nats, float32 [B].

    Args:
        logits: float32 [B, K].
        targets: probabilities of the classes, float32 [B, K].
        weights: factors of the classes' terms; None: all are 1.
        loss: "softmax"; or "sigmoid": the mean over the classes of their binary cross entropies.
    """
    factors = None if weights is None else jnp.array(weights, jnp.float32)
    if loss == SIGMOID:
        terms = optax.sigmoid_binary_cross_entropy(logits, targets)
        return jnp.mean(terms if factors is None else terms * factors, axis=1)
    if factors is not None:
        targets = targets * factors
    return optax.softmax_cross_entropy(logits, targets)
