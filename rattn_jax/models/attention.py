"""The attention module: a trunk branch weighted by a soft mask branch (paper, section 3).

_, seen = model.apply(variables, images, train=False, mutable=["intermediates"])
read_maps(seen["intermediates"])["stage1/module1"].mask    # [B, H, W, C]
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rattn_jax.models.resampling import interpolate, max_pool
from rattn_jax.models.units import ModuleDef

Array = jax.Array

_TINY = 1e-12  # keeps square roots and their gradients finite at zero norm or variance


def mixed_attention(x: Array) -> Array:
    """Sigmoid of every value on its own (paper, f1)."""
    return nn.sigmoid(x)


def channel_attention(x: Array) -> Array:
    """The channels at each position, divided by their L2 norm (paper, f2)."""
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _TINY)


def spatial_attention(x: Array) -> Array:
    """Sigmoid of each channel's map, normalised over its positions (paper, f3)."""
    centred = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
    return nn.sigmoid(centred * lax.rsqrt(variance + _TINY))


MASK_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "mixed": mixed_attention,
    "channel": channel_attention,
    "spatial": spatial_attention,
}


# "paper": as in the authors' network files. "port": as in the PyTorch port
# tengshaofeng/ResidualAttentionNetwork-pytorch (model/attention_module.py), see `SoftMask`.
WIRINGS = ("paper", "port")


def pool_padding(wiring: str) -> int:
    """Padding of the max poolings."""
    return 1 if wiring == "port" else 0


def _chain(unit: ModuleDef, count: int, name: str, x: Array) -> Array:
    """`count` units of constant width, named name1, name2, ..."""
    for i in range(1, count + 1):
        x = unit(x.shape[-1], name=f"{name}{i}")(x)
    return x


def _mask_end(
    h: Array,
    conv: ModuleDef,
    norm: ModuleDef,
    preactivated: bool,
    activation: Callable[[Array], Array],
) -> Array:
    """Twice batch norm, ReLU and 1x1 convolution, and the activation.

    If the units activate their output, there is no batch norm and ReLU before the first
    convolution.
    """
    for i in (1, 2):
        if preactivated or i == 2:
            h = nn.relu(norm(name=f"norm{i}")(h))
        h = conv(h.shape[-1], 1, name=f"linear{i}")(h)
    return activation(h)


class SoftMask(nn.Module):
    """The bottom-up top-down mask branch (paper, figure 2).

    Encoder: at each level a max pooling and then `encoder_units` units. Decoder, from the
    deepest level up: `decoder_units` units, interpolation to the size of the level above and,
    inside the mask, plus the encoder's map of that level passed through `skip_units` units.
    That map enters through these units only: the interpolation takes nothing from it but its
    size. (With wiring "port", poolings have padding 1, and each interpolation is followed by one
    more addition: of the encoder's map as it is or, outside the mask, of the trunk's output.) At
    the end twice batch norm, ReLU and 1x1 convolution, and the activation; where units
    activate their output, the first of the two convolutions reads it as it is.

    Attributes:
        unit: residual unit, configured with its `conv` and `norm`.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        poolings: number of levels, at least 1.
        encoder_units: units after each pooling (the paper's r).
        decoder_units: units before each interpolation.
        skip_units: units of each connection between encoder and decoder.
        preactivated: whether the units leave their output unactivated.
        activation: one of `MASK_ACTIVATIONS`.
        wiring: one of `WIRINGS`.
    """

    unit: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    poolings: int
    encoder_units: int = 1
    decoder_units: int = 1
    skip_units: int = 1
    preactivated: bool = True
    activation: Callable[[Array], Array] = mixed_attention
    wiring: str = "paper"

    @nn.compact
    def __call__(self, x: Array, trunk: Any = None) -> Array:
        """Mask of the shape of x [B, H, W, C]; x is as the units leave it.

        `trunk` is the output of the trunk branch, of the same shape: for the wiring "port".
        """
        encoded = [x]
        for level in range(1, self.poolings + 1):
            h = max_pool(encoded[-1], pool_padding(self.wiring))
            encoded.append(_chain(self.unit, self.encoder_units, f"encoder{level}_unit", h))

        h = encoded[-1]
        for level in range(self.poolings, 0, -1):
            h = _chain(self.unit, self.decoder_units, f"decoder{level}_unit", h)
            above = encoded[level - 1]
            h = interpolate(h, (above.shape[1], above.shape[2]))
            if self.wiring == "port":
                h = h + (above if level > 1 else trunk)
            if level > 1:
                h = h + _chain(self.unit, self.skip_units, f"skip{level - 1}_unit", above)

        return _mask_end(h, self.conv, self.norm, self.preactivated, self.activation)


class LocalMask(nn.Module):
    """A mask without resampling: residual units (paper, table 4, "local convolutions").

    The paper compares three of them at equal cost. Three plain units at full resolution would cost
    several times what an encoder-decoder costs, which works on small maps; so they are narrower
    inside, as `local_width` says: 7, 13 and 17 channels in the stages of Attention-56 for CIFAR, in
    place of 16, 32 and 64.

    Attributes:
        unit: residual unit, configured with its `conv` and `norm`.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        width: inner width of the units; None for their own.
        num_units: number of units.
        preactivated: whether the units leave their output unactivated.
        activation: one of `MASK_ACTIVATIONS`.
    """

    unit: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    width: int | None
    num_units: int = 3
    preactivated: bool = True
    activation: Callable[[Array], Array] = mixed_attention

    @nn.compact
    def __call__(self, x: Array, trunk: Any = None) -> Array:
        """Mask of the shape of x [B, H, W, C]; x is as the units leave it, `trunk` is not read."""
        h = _chain(partial(self.unit, width=self.width), self.num_units, "local_unit", x)
        return _mask_end(h, self.conv, self.norm, self.preactivated, self.activation)


def local_width(
    unit: Any, features: int, poolings: int, encoder_units: int, decoder_units: int, skip_units: int
) -> int:
    """Inner width at which a `LocalMask` costs as much as a `SoftMask`, as nearly as can be.

    Cost is the multiplications of the units, on maps that every pooling halves exactly; the
    ends of both masks are the same.

    Args:
        unit: class of the units, one of `units.UNITS`.
        features: channels of the map.
        poolings: levels of the soft mask.
        encoder_units: its units at each level on the way down.
        decoder_units: its units at each level on the way up.
        skip_units: its units of each connection.
    """
    widths = unit.widths(features)
    units = sum(
        (encoder_units + decoder_units + (skip_units if level < poolings else 0)) / 4**level
        for level in range(1, poolings + 1)
    )
    budget = units * unit.multiply_adds(features, widths[-1]) / 3
    return min(widths, key=lambda width: abs(unit.multiply_adds(features, width) - budget))


class AttentionModule(nn.Module):
    """An attention module: p units, then trunk and mask on their output, then p units.

    If the collection `intermediates` is mutable, it gets `mask_output`, `trunk_output` and
    `fused_output`, each [B, H, W, C].

    Attributes:
        unit: residual unit, configured with its `conv` and `norm`.
        mask: `SoftMask` or `LocalMask`, configured.
        p: number of units before the split and again after the fusion.
        t: number of units of the trunk branch.
        attention_residual: fuse as (1 + M) * T, attention residual learning; False gives the
            naive M * T (paper, section 3.2).
    """

    unit: ModuleDef
    mask: ModuleDef
    p: int = 1
    t: int = 2
    attention_residual: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to the same shape."""
        x = _chain(self.unit, self.p, "pre_unit", x)
        trunk = _chain(self.unit, self.t, "trunk_unit", x)
        mask = self.mask(name="mask")(x, trunk)
        fused = (1 + mask) * trunk if self.attention_residual else mask * trunk
        self.sow("intermediates", "mask_output", mask)
        self.sow("intermediates", "trunk_output", trunk)
        self.sow("intermediates", "fused_output", fused)
        return _chain(self.unit, self.p, "post_unit", fused)


class ModuleMaps(NamedTuple):
    """Maps inside an attention module, each [B, H, W, C].

    Attributes:
        mask: the soft mask.
        trunk: the output of the trunk branch.
        fused: both combined.
    """

    mask: Array | np.ndarray
    trunk: Array | np.ndarray
    fused: Array | np.ndarray


def read_maps(intermediates: Mapping[str, Any]) -> dict[str, ModuleMaps]:
    """The maps of all attention modules, by names such as "stage1/module1".

    Args:
        intermediates: the collection `intermediates` of a forward pass.
    """
    maps = {}
    for stage, modules in intermediates.items():
        for module, values in modules.items():
            if isinstance(values, Mapping):  # others are the stage's own
                (mask,), (trunk,), (fused,) = (values[f"{x}_output"] for x in ModuleMaps._fields)
                maps[f"{stage}/{module}"] = ModuleMaps(mask, trunk, fused)
    return maps


def in_order(names: Iterable[str]) -> list[str]:
    """Sorts names of modules by their numbers: stage1/module10 comes after stage1/module2."""
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
