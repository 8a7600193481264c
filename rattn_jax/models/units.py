"""Residual units: the building blocks of trunk and mask branches.

Every unit maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]. `width` sets
the number of its inner channels; None takes the unit's own. `preactivated` says whether a unit
normalises and activates its input itself; if not, its output is activated already. `features`
must be a multiple of `features_multiple`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

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
        width: channels of the 3x3 convolution; None for features / 4.
    """

    features: int
    conv: ModuleDef
    norm: ModuleDef
    stride: int = 1
    width: int | None = None

    features_multiple: ClassVar[int] = 4
    preactivated: ClassVar[bool] = True

    @staticmethod
    def widths(features: int) -> range:
        """Values that `width` can have, up to the unit's own."""
        return range(1, features // 4 + 1)

    @staticmethod
    def multiply_adds(features: int, width: int) -> int:
        """Multiplications at each position, at stride 1 and constant width."""
        return 2 * features * width + 9 * width**2

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        width = self.width or self.features // 4
        activated = nn.relu(self.norm(name="norm1")(x))
        h = self.conv(width, 1, name="conv1")(activated)
        h = nn.relu(self.norm(name="norm2")(h))
        h = self.conv(width, 3, self.stride, name="conv2")(h)
        h = nn.relu(self.norm(name="norm3")(h))
        h = self.conv(self.features, 1, name="conv3")(h)
        if self.stride == 1 and x.shape[-1] == self.features:
            return x + h
        return self.conv(self.features, 1, self.stride, name="projection")(activated) + h


class WideUnit(nn.Module):
    """Unit of two 3x3 convolutions with pre-activation (Zagoruyko and Komodakis, 2016).

    Both convolutions, the first of which carries the stride, follow batch norm and ReLU. Shortcut
    and sum are those of `PreactivationUnit`. No dropout, as in the rows that the paper cites.

    Attributes:
        features: number of output channels.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        stride: 1 or 2.
    """

    features: int
    conv: ModuleDef
    norm: ModuleDef
    stride: int = 1

    preactivated: ClassVar[bool] = True
    features_multiple: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        activated = nn.relu(self.norm(name="norm1")(x))
        h = self.conv(self.features, 3, self.stride, name="conv1")(activated)
        h = nn.relu(self.norm(name="norm2")(h))
        h = self.conv(self.features, 3, name="conv2")(h)
        if self.stride == 1 and x.shape[-1] == self.features:
            return x + h
        return self.conv(self.features, 1, self.stride, name="projection")(activated) + h


class ResNetUnit(nn.Module):
    """Bottleneck unit (He et al., 2015), with the stride on the 3x3 convolution ("v1.5").

    1x1 convolution, 3x3, 1x1 to features, each followed by batch norm and the first two by ReLU
    too; ReLU after the sum. Where stride or width changes, the shortcut is a 1x1 convolution of
    the input with batch norm.

    Attributes:
        features: number of output channels, a multiple of 4.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        stride: 1 or 2.
        width: channels of the 3x3 convolution; None for features / 4.
    """

    features: int
    conv: ModuleDef
    norm: ModuleDef
    stride: int = 1
    width: int | None = None

    preactivated: ClassVar[bool] = False
    features_multiple: ClassVar[int] = 4

    def inner(self) -> tuple[int, int]:
        """Channels and groups of the 3x3 convolution."""
        return self.width or self.features // 4, 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        width, groups = self.inner()
        h = nn.relu(self.norm(name="norm1")(self.conv(width, 1, name="conv1")(x)))
        h = self.conv(width, 3, self.stride, groups, name="conv2")(h)
        h = nn.relu(self.norm(name="norm2")(h))
        h = self.norm(name="norm3")(self.conv(self.features, 1, name="conv3")(h))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="projection")(x)
            x = self.norm(name="projection_norm")(x)
        return nn.relu(x + h)


class ResNeXtUnit(ResNetUnit):
    """ResNeXt unit (Xie et al., 2017), as in the authors' AttentionNeXt files.

    A `ResNetUnit` whose 3x3 convolution has features / 2 channels in 32 groups.

    Attributes:
        width: channels of the 3x3 convolution, in groups of features / 64; None for features / 2.
    """

    features_multiple: ClassVar[int] = 64

    @staticmethod
    def widths(features: int) -> range:
        """Values that `width` can have, up to the unit's own."""
        return range(features // 64, features // 2 + 1, features // 64)

    @staticmethod
    def multiply_adds(features: int, width: int) -> int:
        """Multiplications at each position, at stride 1 and constant width."""
        return 2 * features * width + 9 * width * (features // 64)

    def inner(self) -> tuple[int, int]:
        """Channels and groups of the 3x3 convolution."""
        width = self.width or self.features // 2
        return width, width // (self.features // 64)


class InceptionUnit(nn.Module):
    """Inception unit with residual connection, for AttentionInception.

    The paper names the unit and gives no layers. This is block A of Inception-ResNet-v2 (Szegedy
    et al., 2016) with its proportions, simplified: in pre-activation form and at any width.
    Three branches read the activated input: 1x1 to w channels; 1x1 to w, 3x3 to w; 1x1 to w,
    3x3 to 1.5 w, 3x3 to 2 w. Side by side they enter a 1x1 convolution to features, which is
    added to the shortcut: the input, or a 1x1 convolution of the activated input where stride or
    width changes. Batch norm and ReLU come before each convolution; the stride is that of the
    first 3x3 convolution of a branch, or of its only 1x1. With w = 3/32 of the features the
    network has the size and cost of Attention-56, as the paper reports.

    Attributes:
        features: number of output channels, a multiple of 64.
        conv: `layers.Conv`.
        norm: `layers.BatchNorm`, configured for training or inference.
        stride: 1 or 2.
        width: w, even; None for 3/32 of the features.
    """

    features: int
    conv: ModuleDef
    norm: ModuleDef
    stride: int = 1
    width: int | None = None

    features_multiple: ClassVar[int] = 64
    preactivated: ClassVar[bool] = True

    @staticmethod
    def widths(features: int) -> range:
        """Values that `width` can have, up to the unit's own."""
        return range(2, 3 * features // 32 + 1, 2)

    @staticmethod
    def multiply_adds(features: int, width: int) -> int:
        """Multiplications at each position, at stride 1 and constant width."""
        wide, wider = 3 * width // 2, 2 * width
        pointwise = features * (3 * width + width + width + wider)
        return pointwise + 9 * (width * width + width * wide + wide * wider)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        width = self.width or 3 * self.features // 32
        activated = nn.relu(self.norm(name="norm1")(x))

        def branch(name: str, *convolutions: tuple[int, int]) -> Array:
            """Convolutions (features, kernel size) of the activated input."""
            h = activated
            for i, (features, kernel_size) in enumerate(convolutions, start=1):
                if i > 1:
                    h = nn.relu(self.norm(name=f"{name}_norm{i}")(h))
                stride = self.stride if i == min(2, len(convolutions)) else 1
                h = self.conv(features, kernel_size, stride, name=f"{name}_conv{i}")(h)
            return h

        branches = [
            branch("branch1", (width, 1)),
            branch("branch2", (width, 1), (width, 3)),
            branch("branch3", (width, 1), (3 * width // 2, 3), (2 * width, 3)),
        ]
        h = nn.relu(self.norm(name="norm2")(jnp.concatenate(branches, axis=-1)))
        h = self.conv(self.features, 1, name="conv")(h)
        if self.stride == 1 and x.shape[-1] == self.features:
            return x + h
        return self.conv(self.features, 1, self.stride, name="projection")(activated) + h


UNITS: dict[str, Any] = {
    "preactivation": PreactivationUnit,
    "resnext": ResNeXtUnit,
    "inception": InceptionUnit,
}
