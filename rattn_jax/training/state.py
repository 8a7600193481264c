"""The training state as one pytree."""

import dataclasses
from functools import partial
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rattn_jax.models import init_variables
from rattn_jax.training.metrics import Metrics, empty


@flax.struct.dataclass
class TrainState:
    """State after `step` updates.

    Attributes:
        step: number of updates done, int32 scalar.
        params: parameters of the network.
        batch_stats: running averages of its batch norms.
        opt_state: state of the optimizer.
        ema: averages of params and batch_stats over the updates (`update_ema`), by these names;
            None if none are kept.
        metrics: sums over the training examples since the last line of metrics.
        num_nonfinite: number of updates that were skipped because they gave NaN or infinity,
            int32 scalar.
        nonfinite_step: step of the last of them, int32 scalar; -1 if there was none, and equal to
            `step` if training has stopped because of it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any
    metrics: Metrics
    num_nonfinite: jax.Array
    nonfinite_step: jax.Array

    @property
    def evaluated(self) -> Any:
        """The variables to evaluate: the EMA if there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def update_ema(ema: Any, params: Any, batch_stats: Any, step: jax.Array, decay: float) -> Any:
    """Exponential moving averages after an update.

    Args:
        ema: averages before the update, or None.
        params: parameters after the update.
        batch_stats: running averages after it.
        step: number of updates before it.
        decay: weight of the averages before; less in the first updates, when it is
            (1 + step) / (10 + step), so that the initial parameters are soon forgotten (as in
            TensorFlow's ExponentialMovingAverage with num_updates).
    """
    if ema is None:
        return None
    weight = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update({"params": params, "batch_stats": batch_stats}, ema, 1 - weight)


def skip_nonfinite_update(
    new: TrainState, old: TrainState, *, go_on: bool, branch: bool = True
) -> TrainState:
    """Returns `new` if all of its numbers are finite, otherwise `old` with the update counted.

    Args:
        new: state after an update.
        old: state before it.
        go_on: whether to continue with the next batch; if not, later updates change nothing.
        branch: whether to choose the state as a whole, for which a GPU waits until the host has
            read the condition, or number by number.
    """
    numbers = [x for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.floating)]
    # All at once: one by one would be hundreds of additional kernels to compile.
    flat = jnp.concatenate([x.ravel() for x in jax.lax.optimization_barrier(numbers)])
    finite = jnp.all(jnp.isfinite(flat))
    if not go_on:
        finite &= old.nonfinite_step != old.step
    left_out = dataclasses.replace(
        old,
        step=new.step if go_on else old.step,
        num_nonfinite=old.num_nonfinite + 1,
        nonfinite_step=old.step,
    )
    if branch:
        return jax.lax.cond(finite, lambda: new, lambda: left_out)
    return jax.tree.map(partial(jnp.where, finite), new, left_out)


def create_train_state(
    rng: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    with_averages: bool = False,
) -> TrainState:
    """Creates the state of a run before its first update.

    Args:
        rng: random key of the initial parameters.
        model: network, called as `model(images, train=False)`.
        optimizer: optimizer of the run.
        image_shape: height, width, channels.
        with_averages: whether to keep an EMA of parameters and batch statistics.
    """
    variables = init_variables(model, rng, image_shape)
    params, batch_stats = variables["params"], variables["batch_stats"]
    ema = {"params": params, "batch_stats": batch_stats} if with_averages else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, ema),  # donated apart from the parameters
        metrics=empty(),
        num_nonfinite=jnp.zeros((), jnp.int32),
        nonfinite_step=jnp.full((), -1, jnp.int32),
    )
