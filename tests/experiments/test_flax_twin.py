"""The network and its gradients against the same network written with flax.linen's layers.

In float64, so that only a difference of meaning can show.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rattn_jax
from experiments.flax_twin import FlaxTwin

WIDTHS = (8, 12, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_modules", "train"),
    [
        ("attention56_cifar", 1, True),
        ("attention56_cifar", 1, False),
        ("attention92_cifar", 2, True),
        ("attention92_cifar", 2, False),
    ],
)
def test_values_and_gradients(name, num_modules, train):
    ours = rattn_jax.create_model(name, 10, widths=WIDTHS)
    twin = FlaxTwin(10, num_modules=num_modules, widths=WIDTHS)
    generator = np.random.RandomState(0)
    images = generator.normal(size=(4, 16, 16, 3))
    shapes = jax.eval_shape(partial(twin.init, train=False), jax.random.key(0), images)
    assert shapes == jax.eval_shape(partial(ours.init, train=False), jax.random.key(0), images)
    variables = jax.tree.map(
        lambda leaf: (
            generator.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
            if len(leaf.shape) > 1
            else generator.uniform(0.5, 1.5, leaf.shape)
        ),
        shapes,
    )

    def run(model):
        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=train, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.square(logits)), (logits, updates)

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    with jax.enable_x64(True):
        results = run(ours), run(twin)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max()),
        *results,
    )
