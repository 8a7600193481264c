"""Shapes and values of a network's variables, without the time that initialising it takes."""

import jax
import jax.numpy as jnp
import numpy as np


def abstract_variables(model, image_shape=(32, 32, 3)):
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return jax.eval_shape(lambda rng, x: model.init(rng, x, train=False), jax.random.key(0), images)


def zeros(make):
    """What `make()` returns, with zeros for values, which take no time."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(make))


def random_variables(model, image_shape, dtype=np.float32):
    """Values for every variable that make no two paths through the net look alike."""
    generator = np.random.RandomState(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            generator.uniform(0.5, 1.5, leaf.shape)
            if path[-1].key in ("scale", "var")
            else generator.normal(size=leaf.shape) * 0.3
        ).astype(dtype),
        abstract_variables(model, image_shape),
    )
