"""Updates and evaluations, as pure functions of one replica.

They run under a mapped axis (`parallel.py`) over which gradients, running averages and metrics
are combined; `batch` is the replica's share of the global batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rattn_jax.augment import example_rngs
from rattn_jax.metrics import Metrics, cross_entropy, empty, measure, merge
from rattn_jax.train_state import TrainState

Array = jax.Array
Augment = Callable[[Array, Array], Array]  # (rngs [B], images [B, H, W, C]) -> images


class ResidentData(NamedTuple):
    """A split that lives on the device, whole.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        mean_image: the training images' mean, to be subtracted, float32 [H, W, C].
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray
    mean_image: Array | np.ndarray


def train_step(
    state: TrainState,
    data: ResidentData,
    indices: Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    axis_name: str,
) -> TrainState:
    """State after one update.

    Args:
        state: state before it, the same on every replica.
        data: the training split.
        indices: examples of the replica's share of the batch, int32 [B].
        model: network.
        optimizer: optimizer.
        augment: augmentation of the uint8 images.
        seed: seed of the augmentation.
        axis_name: mapped axis of the replicas.
    """
    share = indices.shape[0]
    positions = jax.lax.axis_index(axis_name) * share + jnp.arange(share)
    images = augment(example_rngs(seed, state.step, positions), data.images[indices])
    images = images.astype(jnp.float32) - data.mean_image
    labels = data.labels[indices]

    def loss_fn(params: Any) -> tuple[Array, tuple[Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.mean(cross_entropy(logits, labels)), (logits, updated["batch_stats"])

    grads, (logits, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads, batch_stats = jax.lax.pmean((grads, batch_stats), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        metrics=merge(state.metrics, measure(logits, labels, axis_name=axis_name)),
    )


def train_steps(
    state: TrainState, data: ResidentData, indices: Array, *, loop: bool, **keywords: Any
) -> TrainState:
    """State after one `train_step` for each row of `indices` [steps, B].

    Args:
        state: state before them.
        data: the training split.
        indices: examples of the replica's share of each batch, int32 [steps, B].
        loop: see `_fold`.
        **keywords: those of `train_step`.
    """

    def step(state: TrainState, row: Array) -> TrainState:
        return train_step(state, data, row, **keywords)

    return _fold(step, state, indices, loop)


def eval_step(
    state: TrainState,
    data: ResidentData,
    indices: Array,
    mask: Array,
    *,
    model: nn.Module,
    axis_name: str,
) -> Metrics:
    """Metrics of a batch, normalised with the running averages, over all replicas.

    Args:
        state: state, the same on every replica.
        data: the split.
        indices: examples of the replica's share of the batch, int32 [B].
        mask: bool [B], False for examples that do not count.
        model: network.
        axis_name: mapped axis of the replicas.
    """
    images = data.images[indices].astype(jnp.float32) - data.mean_image
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits: Any = model.apply(variables, images, train=False)
    return measure(logits, data.labels[indices], mask, axis_name)


def eval_steps(
    state: TrainState,
    data: ResidentData,
    indices: Array,
    mask: Array,
    *,
    loop: bool,
    **keywords: Any,
) -> Metrics:
    """Metrics over the rows of `indices` and `mask` [steps, B], as `eval_step` gives them."""

    def step(sums: Metrics, row: tuple[Array, Array]) -> Metrics:
        return merge(sums, eval_step(state, data, *row, **keywords))

    return _fold(step, empty(), (indices, mask), loop)


def _fold(function: Callable[[Any, Any], Any], carry: Any, rows: Any, loop: bool) -> Any:
    """Carry after `function(carry, row)` for each row, in a compiled loop or one by one.

    A loop compiles its body once. On CPU it makes convolutions slow, their gradients 20 times,
    and so does `jax.lax.scan` with `unroll`, even over a single row.
    """
    if loop:
        return jax.lax.scan(lambda carry, row: (function(carry, row), None), carry, rows)[0]
    for i in range(jax.tree.leaves(rows)[0].shape[0]):
        carry = function(carry, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
    return carry
