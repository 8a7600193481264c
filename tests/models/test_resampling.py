import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.errors import UsageError
from rattn_jax.models.resampling import interpolate, max_pool
from tests import plain_network


def random(*shape):
    return jnp.asarray(np.random.RandomState(0).normal(size=shape), jnp.float32)


def test_max_pool_by_hand():
    x = jnp.asarray([[9, 1, 2, 3, 4], [0, 5, 0, 0, 0], [0, 0, 0, 0, 8]], jnp.float32)
    # 3 rows make one window; of 5 columns, windows start at 0 and 2.
    np.testing.assert_array_equal(max_pool(x[None, :, :, None])[0, :, :, 0], [[9, 8]])
    # 4 columns: the second window is cut off after 2.
    np.testing.assert_array_equal(max_pool(x[None, :, :4, None])[0, :, :, 0], [[9, 3]])


@pytest.mark.parametrize("size", [(2, 3), (4, 4), (5, 8), (7, 9), (12, 6)])
def test_max_pool(size):
    x = random(2, *size, 3)
    np.testing.assert_array_equal(max_pool(x), plain_network.max_pool(x))
    padding = [(0, n % 2 == 0) for n in size]

    def flax(x):
        return nn.max_pool(x, (3, 3), (2, 2), padding)

    weights = random(*max_pool(x).shape)
    gradients = [jax.grad(lambda x, f=f: jnp.sum(f(x) * weights))(x) for f in (max_pool, flax)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)


@pytest.mark.parametrize("size", [(2, 3), (4, 4), (5, 8), (7, 9), (12, 6)])
def test_max_pool_with_padding(size):
    x = random(2, *size, 3) - 9  # zeros would win
    expected = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
    np.testing.assert_array_equal(max_pool(x, 1), expected)


def test_max_pool_does_not_pad_before_the_first_row():
    """Padding on both sides, the habit elsewhere, gives the same sizes but other windows."""
    x = random(1, 8, 8, 1)
    other = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
    assert other.shape == max_pool(x).shape
    assert not np.array_equal(other, max_pool(x))


def test_map_too_small_to_pool():
    with pytest.raises(UsageError, match=r"cannot pool a map of 1x4.*larger images"):
        max_pool(random(1, 1, 4, 2))


def test_interpolation_by_hand():
    x = jnp.asarray([0.0, 3.0])[None, :, None, None]
    expected = [0, 1, 2, 3]  # the corners keep their values
    np.testing.assert_allclose(interpolate(x, (4, 1))[0, :, 0, 0], expected, atol=1e-6)
    assert not np.allclose(jax.image.resize(x, (1, 4, 1, 1), "linear")[0, :, 0, 0], expected)


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [((2, 3), (4, 6)), ((4, 4), (9, 8)), ((1, 2), (3, 5)), ((5, 5), (5, 5)), ((3, 4), (1, 2))],
)
def test_interpolation(size_in, size_out):
    x = random(2, *size_in, 3)
    out = interpolate(x, size_out)
    np.testing.assert_allclose(out, plain_network.interpolate(x, size_out), atol=1e-5)
    # It is linear: its gradient is the transposed map.
    gradient = jax.grad(lambda x: jnp.sum(interpolate(x, size_out) * out))(x)
    np.testing.assert_allclose(jnp.sum(gradient * x), jnp.sum(out * out), rtol=1e-5)


@pytest.mark.parametrize("function", [max_pool, lambda x: interpolate(x, (9, 7))])
def test_dtype_stays(function):
    assert function(random(1, 4, 4, 2).astype(jnp.bfloat16)).dtype == jnp.bfloat16
