"""Loss and errors as sums over examples, which give the same average for any batch size.

totals = merge(measure(logits, labels, mask), measure(more_logits, more_labels, more_mask))
compute(totals)    # {"loss": ..., "error_top1": ..., "error_top5": ...}
"""

import jax
import jax.numpy as jnp
import optax
from clu import metrics

Array = jax.Array
Metrics = dict[str, metrics.Average]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross entropy of each example in nats, float32 [B]; logits [B, classes], labels [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def measure(
    logits: Array,
    labels: Array,
    mask: Array | None = None,
    axis_name: str | None = None,
    losses: Array | None = None,
) -> Metrics:
    """Sums of cross entropy, top-1 and top-5 errors over a batch.

    Args:
        logits: float32 [B, classes].
        labels: int32 [B].
        mask: bool [B], False for examples that do not count; None counts all.
        axis_name: mapped axis to sum over.
        losses: float32 [B], if another loss than the cross entropy is minimised.

    Returns:
        "loss", "error_top1" and "error_top5". A class with the same logit as the true one
        is ranked before it, and so is NaN, so ties count as errors. With at most five classes the
        top-5 error of finite logits is 0.
    """
    true_logit = jnp.take_along_axis(logits, labels[:, None], axis=1)
    rank = jnp.sum(~(logits < true_logit), axis=1)
    values = {
        "loss": cross_entropy(logits, labels) if losses is None else losses,
        "error_top1": (rank > 1).astype(jnp.float32),
        "error_top5": (rank > 5).astype(jnp.float32),
    }
    sums = {name: metrics.Average.from_model_output(value, mask) for name, value in values.items()}
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def empty() -> Metrics:
    """Sums over zero examples."""
    return {name: metrics.Average.empty() for name in ("loss", "error_top1", "error_top5")}


def merge(a: Metrics, b: Metrics) -> Metrics:
    """Sums over the examples of both."""
    return {name: a[name].merge(b[name]) for name in a}


def compute(sums: Metrics) -> dict[str, float]:
    """Averages over the examples as Python floats, by name."""
    return {name: float(average.compute()) for name, average in sums.items()}


def count_examples(sums: Metrics) -> int:
    """Number of examples in the sums."""
    return int(sums["loss"].count)
