"""Convolution and batch norm against flax.linen's own, values and gradients."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.models import layers
from rattn_jax.models.layers import BatchNorm, Conv
from tests.compare import assert_close


def random(*shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def values_and_gradients(module, variables, x):
    """Output, updated variables, and gradients of a weighted sum by parameters and input."""

    def loss(params, x):
        out, updates = module.apply(variables | {"params": params}, x, mutable=["batch_stats"])
        return jnp.sum(out * random(*out.shape, seed=1)), (out, updates)

    gradients, aux = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
    return gradients, aux


CONVOLUTIONS = [
    # size, stride, groups, channels, features
    (1, 1, 1, 8, 4),
    (1, 1, 1, 4, 8),
    (1, 2, 1, 4, 6),
    (3, 1, 1, 4, 8),
    (3, 1, 1, 8, 4),
    (3, 2, 1, 4, 6),
    (3, 1, 4, 8, 12),
    (3, 2, 4, 8, 12),
    (5, 1, 1, 3, 4),
    (7, 2, 1, 3, 8),
]


@pytest.mark.parametrize(("size", "stride", "groups", "channels", "features"), CONVOLUTIONS)
@pytest.mark.parametrize("side", [7, 8])
def test_convolution(size, stride, groups, channels, features, side):
    x = random(2, side, side + 2, channels)
    ours = Conv(features, size, stride, groups)
    flax = nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=(size - 1) // 2,
        use_bias=False,
        feature_group_count=groups,
    )
    variables = flax.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    assert_close(
        values_and_gradients(ours, variables, x),
        values_and_gradients(flax, variables, x),
        rtol=1e-4,
        atol=1e-4,
    )


def test_kernel_gradient_of_other_platforms_is_the_same():
    x, kernel, dout = random(2, 5, 6, 3), random(3, 3, 3, 4, seed=1), random(2, 5, 6, 4, seed=2)
    assert_close(
        layers._convolution_gradients(x, kernel, dout),
        layers._convolution_gradients_on_cpu(x, kernel, dout),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("use_running_average", [False, True])
def test_batch_norm(use_running_average, offset):
    x = 3 * random(4, 5, 6, 7) + offset
    keywords = {"use_running_average": use_running_average, "epsilon": 1e-5, "momentum": 0.9}
    flax = nn.BatchNorm(**keywords, use_fast_variance=False)
    generator = np.random.RandomState(2)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(generator.uniform(0.5, 2, leaf.shape), jnp.float32),
        flax.init(jax.random.key(0), x),
    )
    ours = BatchNorm(use_running_average)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    assert_close(
        values_and_gradients(ours, variables, x),
        values_and_gradients(flax, variables, x),
        rtol=2e-4,
        atol=2e-4,
    )


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (1, 1, 256, 256), (3, 3, 128, 64)])
def test_initial_kernels_are_those_of_flax(shape):
    key = jax.random.key(3)
    flax = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    assert_close(layers.he_normal(key, shape), flax(key, shape, jnp.float32), rtol=1e-6)


@pytest.mark.parametrize(("offset", "center"), [(0, 0), (300, 299), (3, 0)])
def test_statistics_of_other_platforms_are_the_same(offset, center):
    x = 3 * random(4, 16, 16, 5) + offset
    guess = jnp.full(5, center, jnp.float32)
    assert_close(
        layers._statistics_in_one_pass(x, guess, axis_name=None),
        layers._statistics_in_two_passes(x, guess, axis_name=None),
        rtol=1e-5,
    )


def test_batch_norm_over_replicas_is_that_of_the_whole_batch():
    x = random(4, 3, 3, 5)
    whole = BatchNorm(False)
    variables = whole.init(jax.random.key(0), x)
    split = BatchNorm(False, axis_name="replicas")
    mapped = jax.vmap(
        partial(split.apply, variables, mutable=["batch_stats"]), axis_name="replicas"
    )
    out, updates = mapped(x.reshape(2, 2, 3, 3, 5))
    expected, expected_updates = whole.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(out.reshape(x.shape), expected, atol=1e-5)
    assert_close(
        jax.tree.map(lambda leaf: leaf[0], updates), expected_updates, rtol=1e-5, atol=1e-6
    )


def test_layers_compute_in_the_dtype_of_the_map_and_keep_float32_variables():
    x = random(2, 6, 6, 4).astype(jnp.bfloat16)
    for module in (Conv(8, 1), Conv(8, 3), Conv(8, 3, 2), Conv(8, 3, 1, 2), BatchNorm(False)):
        variables = module.init(jax.random.key(0), x)
        out, updates = module.apply(variables, x, mutable=["batch_stats"])
        assert out.dtype == jnp.bfloat16
        gradients, _ = values_and_gradients(module, variables, x)
        leaves = jax.tree.leaves((variables, updates, gradients[0]))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
        assert gradients[1].dtype == jnp.bfloat16


def test_batch_norm_of_bfloat16_has_float32_statistics():
    """Added up in bfloat16, 4,096 values of 1 make 256."""
    x = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    module = BatchNorm(False)
    _, updates = module.apply(module.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1, rtol=1e-6)
