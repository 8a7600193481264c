"""Residual units: the building blocks of trunk and mask branches."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

Array = jax.Array
ModuleDef = Callable[..., Any]  # a module class, configured with functools.partial


class PreactivationUnit(nn.Module):
    """Bottleneck unit with pre-activation (He et al., "Identity mappings", 2016).

    1x1 convolution to features / 4, 3x3 (which carries the stride), 1x1 to features, each after
    batch norm and ReLU. Where stride or width changes, the shortcut is a 1x1 convolution of the
    *activated* input; otherwise it is the input itself. No activation after the sum.

    Attributes:
        features: number of output channels, a multiple of 4.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        stride: 1 or 2.
    """

    features: int
    conv: ModuleDef
    norm: ModuleDef
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        activated = nn.relu(self.norm(name="norm1")(x))
        h = self.conv(self.features // 4, 1, name="conv1")(activated)
        h = nn.relu(self.norm(name="norm2")(h))
        h = self.conv(self.features // 4, 3, self.stride, name="conv2")(h)
        h = nn.relu(self.norm(name="norm3")(h))
        h = self.conv(self.features, 1, name="conv3")(h)
        if self.stride == 1 and x.shape[-1] == self.features:
            return x + h
        return self.conv(self.features, 1, self.stride, name="projection")(activated) + h
