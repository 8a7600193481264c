"""The wiring of the attention module, with stand-ins for its layers.

Each unit multiplies by a factor of its own, convolutions and norms do nothing: what a mask or a
module computes is then a formula, and a wrong connection a wrong number.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.models.attention import (
    MASK_ACTIVATIONS,
    AttentionModule,
    LocalMask,
    SoftMask,
    channel_attention,
    local_width,
    mixed_attention,
    spatial_attention,
)
from rattn_jax.models.resampling import interpolate, max_pool
from rattn_jax.models.units import UNITS

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
    "local_unit1": 0.5,
    "local_unit2": 0.6,
    "local_unit3": 0.8,
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

    def __call__(self, x, trunk):
        self.sow("intermediates", "input", x)
        self.sow("intermediates", "trunk", trunk)
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


def test_mask_of_the_port_adds_once_more_after_each_interpolation(x):
    trunk = 3 - x
    mask = SoftMask(Factor, Negate, Norm, poolings=2, wiring="port").apply({}, x, trunk)
    e1 = FACTORS["encoder1_unit1"] * max_pool(x, 1)
    e2 = FACTORS["encoder2_unit1"] * max_pool(e1, 1)
    h = interpolate(FACTORS["decoder2_unit1"] * e2, (4, 4)) + e1 + FACTORS["skip1_unit1"] * e1
    h = interpolate(FACTORS["decoder1_unit1"] * h, (8, 8)) + trunk
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
    seen = sown["intermediates"]["mask"]
    np.testing.assert_allclose(seen["input"][0], pre, rtol=1e-6)
    np.testing.assert_allclose(seen["trunk"][0], 5.0 * 7.0 * pre, rtol=1e-6)


def test_mask_gets_a_gradient_everywhere(x):
    grads = jax.grad(lambda x: SoftMask(Factor, Negate, Norm, poolings=2).apply({}, x).sum())(x)
    assert jnp.all(jnp.isfinite(grads))
    assert jnp.any(grads != 0)


def test_mask_of_activated_units_reads_them_as_they_are(x):
    """In the ResNeXt networks, no norm and no ReLU stand before the first convolution."""
    mask = SoftMask(Factor, Negate, Norm, poolings=1, preactivated=False).apply({}, x)
    h = interpolate(FACTORS["decoder1_unit1"] * FACTORS["encoder1_unit1"] * max_pool(x), (8, 8))
    np.testing.assert_allclose(logit(mask), -nn.relu(-h / 4 + 1) / 4, atol=1e-5)


def test_local_mask(x):
    widths = []

    class Narrow(nn.Module):
        features: int
        width: int | None

        def __call__(self, x):
            widths.append(self.width)
            return FACTORS[self.name] * x

    mask = LocalMask(Narrow, Negate, Norm, width=2).apply({}, x)
    np.testing.assert_allclose(logit(mask), ending(0.5 * 0.6 * 0.8 * x), atol=1e-5)
    assert widths == [2, 2, 2]
    mask = LocalMask(Narrow, Negate, Norm, width=None, num_units=2).apply({}, x)
    np.testing.assert_allclose(logit(mask), ending(0.5 * 0.6 * x), atol=1e-5)
    assert widths[3:] == [None, None]


def test_mask_uses_the_activation_that_it_is_given(x):
    mask = SoftMask(Factor, Negate, Norm, poolings=1).apply({}, x)
    other = SoftMask(Factor, Negate, Norm, poolings=1, activation=jnp.negative).apply({}, x)
    np.testing.assert_allclose(-other, logit(mask), atol=1e-5)


def test_mixed_attention_by_hand():
    x = jnp.asarray([0.0, jnp.log(3.0), -jnp.log(3.0)])
    np.testing.assert_allclose(mixed_attention(x), [0.5, 0.75, 0.25], rtol=1e-6)


def test_channel_attention_by_hand():
    """Each position's channels, divided by their norm."""
    x = jnp.asarray([[3.0, -4.0], [0.0, 2.0]])[None, None]
    np.testing.assert_allclose(channel_attention(x)[0, 0], [[0.6, -0.8], [0.0, 1.0]], rtol=1e-6)


def test_spatial_attention_by_hand():
    """Each channel's map, normalised over its positions."""
    x = jnp.asarray([[1.0, 10.0], [3.0, 30.0]])[None, :, None, :]  # two positions, two channels
    expected = 1 / (1 + np.exp([1.0, -1.0]))
    np.testing.assert_allclose(spatial_attention(x)[0, :, 0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(spatial_attention(x)[0, :, 0, 1], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MASK_ACTIVATIONS)
def test_mask_activations_are_safe_at_zero_norm_and_variance(name, dtype):
    activation = MASK_ACTIVATIONS[name]
    for value in (0.0, 2.0, 1e-20, 200.0):
        x = jnp.full((1, 3, 3, 2), value, dtype)
        gradients = jax.grad(lambda x: activation(x).astype(jnp.float32).sum())(x)
        assert activation(x).dtype == dtype
        assert jnp.all(jnp.isfinite(activation(x)))
        assert jnp.all(jnp.isfinite(gradients))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("poolings", [1, 2, 3])
def test_local_mask_costs_what_an_encoder_decoder_costs(unit, poolings):
    unit, features = UNITS[unit], 256
    counted = {1: 2 / 4, 2: 3 / 4 + 2 / 16, 3: 3 / 4 + 3 / 16 + 2 / 64}  # units by level
    budget = counted[poolings] * unit.multiply_adds(features, unit.widths(features)[-1])
    width = local_width(unit, features, poolings, 1, 1, 1)
    assert 3 * unit.multiply_adds(features, width) == pytest.approx(budget, rel=0.12)
