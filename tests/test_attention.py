"""The wiring of the attention module, with stand-ins for its layers.

Each unit multiplies by a factor of its own, convolutions and norms do nothing: what a mask or a
module computes is then a formula, and a wrong connection a wrong number.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.models.attention import AttentionModule, SoftMask
from rattn_jax.models.resampling import interpolate, max_pool

FACTORS = {
    "encoder1_unit1": 1.1,
    "encoder2_unit1": 1.2,
    "decoder1_unit1": 1.3,
    "decoder2_unit1": 0.7,
    "skip1_unit1": 0.9,
    "pre_unit1": 2.0,
    "pre_unit2": 3.0,
    "trunk_unit1": 5.0,
    "trunk_unit2": 7.0,
    "post_unit1": 11.0,
    "post_unit2": 13.0,
}


class Factor(nn.Module):
    """Stands in for a unit."""

    features: int

    def __call__(self, x):
        assert self.features == x.shape[-1]
        return FACTORS[self.name] * x


class Norm(nn.Module):
    """Stands in for batch norm: adds 1, so that a missing or extra one is seen."""

    def __call__(self, x):
        return x + 1


class Negate(nn.Module):
    """Stands in for a 1x1 convolution: the ReLU after the next norm sees it."""

    features: int
    kernel_size: int

    def __call__(self, x):
        assert (self.features, self.kernel_size) == (x.shape[-1], 1)
        return -x / 4


class Half(nn.Module):
    """Stands in for a mask: remembers what it is given."""

    def __call__(self, x):
        self.sow("intermediates", "input", x)
        return jnp.full(x.shape, 0.5)


@pytest.fixture
def x():
    return jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)


def logit(mask):
    return jnp.log(mask / (1 - mask))


def ending(h):
    """Twice norm, ReLU, convolution."""
    for _ in range(2):
        h = -nn.relu(h + 1) / 4
    return h


def test_mask_with_one_pooling(x):
    mask = SoftMask(Factor, Negate, Norm, poolings=1).apply({}, x)
    h = interpolate(FACTORS["decoder1_unit1"] * FACTORS["encoder1_unit1"] * max_pool(x), (8, 8))
    np.testing.assert_allclose(logit(mask), ending(h), atol=1e-5)


def test_mask_adds_the_encoder_map_through_the_skip_unit_only(x):
    mask = SoftMask(Factor, Negate, Norm, poolings=2).apply({}, x)
    e1 = FACTORS["encoder1_unit1"] * max_pool(x)
    e2 = FACTORS["encoder2_unit1"] * max_pool(e1)
    h = interpolate(FACTORS["decoder2_unit1"] * e2, (4, 4)) + FACTORS["skip1_unit1"] * e1
    h = interpolate(FACTORS["decoder1_unit1"] * h, (8, 8))
    np.testing.assert_allclose(logit(mask), ending(h), atol=1e-5)


def test_mask_unit_counts(x):
    counted = {}

    class Counted(nn.Module):
        features: int

        def __call__(self, x):
            counted[self.name] = x.shape[1]
            return x

    mask = SoftMask(
        Counted, Negate, Norm, poolings=2, encoder_units=3, decoder_units=2, skip_units=1
    )
    mask.apply({}, x)
    assert counted == {
        **{f"encoder1_unit{i}": 4 for i in (1, 2, 3)},
        **{f"encoder2_unit{i}": 2 for i in (1, 2, 3)},
        **{f"decoder2_unit{i}": 2 for i in (1, 2)},
        **{f"decoder1_unit{i}": 4 for i in (1, 2)},
        "skip1_unit1": 4,
    }


def test_mask_is_one_value_in_0_1_for_each_position_and_channel(x):
    mask = SoftMask(Factor, Negate, Norm, poolings=2).apply({}, x)
    assert mask.shape == x.shape
    assert jnp.all((mask > 0) & (mask < 1))
    assert len(np.unique(mask)) > x.size / 2


@pytest.mark.parametrize(("attention_residual", "factor"), [(True, 1.5), (False, 0.5)])
def test_module(x, attention_residual, factor):
    module = AttentionModule(Factor, Half, p=2, t=2, attention_residual=attention_residual)
    out, sown = module.apply({}, x, mutable=["intermediates"])
    pre = 2.0 * 3.0 * x
    np.testing.assert_allclose(out, 11.0 * 13.0 * factor * 5.0 * 7.0 * pre, rtol=1e-5)
    np.testing.assert_allclose(sown["intermediates"]["mask"]["input"][0], pre, rtol=1e-6)


def test_mask_gets_a_gradient_everywhere(x):
    grads = jax.grad(lambda x: SoftMask(Factor, Negate, Norm, poolings=2).apply({}, x).sum())(x)
    assert jnp.all(jnp.isfinite(grads))
    assert jnp.any(grads != 0)
