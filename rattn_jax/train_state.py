"""Everything that a training run changes, as one pytree."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rattn_jax.metrics import Metrics, empty


@flax.struct.dataclass
class TrainState:
    """State after `step` updates.

    Attributes:
        step: number of updates done, int32 scalar.
        params: parameters of the network.
        batch_stats: running averages of its batch norms.
        opt_state: state of the optimizer.
        metrics: sums over the training examples since the last line of metrics.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    metrics: Metrics


def create_train_state(
    rng: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
) -> TrainState:
    """State of a run before its first update.

    Args:
        rng: random key of the initial parameters.
        model: network, called as `model(images, train=False)`.
        optimizer: optimizer of the run.
        image_shape: height, width, channels.
    """
    # Not compiled as a whole: on CPU that takes minutes (hundreds of random kernels). lazy_init
    # computes the parameters only, without the forward pass.
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = model.lazy_init(rng, images, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        metrics=empty(),
    )
