"""The variables of a network before its first update.

model = create_model("attention56_cifar", num_classes=10)
variables = init_variables(model, jax.random.key(0), (32, 32, 3))
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval


def init_variables(model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> Any:
    """Draws parameters and batch statistics, equal to those of `model.init`, without its waits.

    `model.init` computes the forward pass as well, one operation after the other, each of which is
    compiled. Compiled as a whole it takes from 20 seconds to minutes, because of hundreds of random
    functions. Here the program of `model.init` is traced, what only the forward pass needs is
    dropped, and the rest, for which some 30 small functions are compiled, is computed.

    Args:
        model: network, called as `model(images, train=False)`.
        key: random key of the parameters.
        image_shape: height, width, channels.

    Returns:
        {"params": ..., "batch_stats": ...}, float32.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = partial(model.init, train=False)
    traced, shapes = jax.make_jaxpr(init, return_shape=True)(key, images)
    program, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    values = jax.core.eval_jaxpr(program, traced.consts, key)
    return jax.tree.unflatten(jax.tree.structure(shapes), values)
