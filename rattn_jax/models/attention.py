"""The attention module: a trunk branch, weighted by a soft mask branch (paper, section 3)."""

import flax.linen as nn
import jax

from rattn_jax.models.resampling import interpolate, max_pool
from rattn_jax.models.units import ModuleDef

Array = jax.Array


def _chain(unit: ModuleDef, count: int, name: str, x: Array) -> Array:
    """`count` units of constant width, named name1, name2, ..."""
    for i in range(1, count + 1):
        x = unit(x.shape[-1], name=f"{name}{i}")(x)
    return x


class SoftMask(nn.Module):
    """The bottom-up top-down mask branch (paper, figure 2).

    Encoder: at each level a max pooling and then `encoder_units` units. Decoder, from the
    deepest level up: `decoder_units` units, interpolation to the size of the level above and,
    inside the mask, plus the encoder's map of that level passed through `skip_units` units.
    That map enters through these units only: the interpolation takes nothing from it but its
    size. At the end twice batch norm, ReLU and 1x1 convolution, and a sigmoid: one value in
    (0, 1) for each position and channel.

    Attributes:
        unit: residual unit, configured with its `conv` and `norm`.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        poolings: number of levels, at least 1.
        encoder_units: units after each pooling (the paper's r).
        decoder_units: units before each interpolation.
        skip_units: units of each connection between encoder and decoder.
    """

    unit: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    poolings: int
    encoder_units: int = 1
    decoder_units: int = 1
    skip_units: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Mask of the shape of x [B, H, W, C]; x is neither normalised nor activated."""
        encoded = [x]
        for level in range(1, self.poolings + 1):
            h = max_pool(encoded[-1])
            encoded.append(_chain(self.unit, self.encoder_units, f"encoder{level}_unit", h))

        h = encoded[-1]
        for level in range(self.poolings, 0, -1):
            h = _chain(self.unit, self.decoder_units, f"decoder{level}_unit", h)
            above = encoded[level - 1]
            h = interpolate(h, (above.shape[1], above.shape[2]))
            if level > 1:
                h = h + _chain(self.unit, self.skip_units, f"skip{level - 1}_unit", above)

        features = x.shape[-1]
        for i in (1, 2):
            h = nn.relu(self.norm(name=f"norm{i}")(h))
            h = self.conv(features, 1, name=f"linear{i}")(h)
        return nn.sigmoid(h)


class AttentionModule(nn.Module):
    """p units, then trunk and mask side by side on their output, then p units.

    Attributes:
        unit: residual unit, configured with its `conv` and `norm`.
        mask: `SoftMask`, configured.
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
        mask = self.mask(name="mask")(x)
        fused = (1 + mask) * trunk if self.attention_residual else mask * trunk
        return _chain(self.unit, self.p, "post_unit", fused)
