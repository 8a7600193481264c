"""Inception-ResNet v1 and v2 (Szegedy et al., 2016): baselines of the paper's table 7.

Layers and widths are those of Szegedy et al. and, where their code differs from the text, of their
code: v2 has 10, 20 and 10 blocks, the last without scaling and ReLU. Every convolution is followed
by batch norm and ReLU, except those that lead from a block's branches back to the stream, which
have a bias and neither. The convolutions are `flax.linen.Conv`: the levers of `layers.py` are for
the attention networks.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rattn_jax.errors import UsageError
from rattn_jax.models.layers import BatchNorm, he_normal
from rattn_jax.models.stem_and_head import check_dtype, classify, to_dtype
from rattn_jax.models.units import ModuleDef

Array = jax.Array
Layer = tuple[int, int | tuple[int, int]]  # features, kernel size
Branch = tuple[Layer, ...]

_LEAST_IMAGE_SIZE = 75  # below, the last reduction has no whole window


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A row of equal residual blocks.

    Attributes:
        count: number of blocks.
        branches: their branches.
        scale: factor of what a block adds to the stream.
    """

    count: int
    branches: tuple[Branch, ...]
    scale: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """Widths of a network.

    Attributes:
        stem: branches that make the stream of the first blocks out of 192 channels, after max
            pooling; None is one 3x3 convolution to 256 with stride 2 instead.
        blocks: the three rows of blocks, at an eighth, a sixteenth and a thirty-second of the
            resolution.
        reductions: branches of the two reductions between them, each ending with stride 2, beside
            max pooling.
        features: channels of a last 1x1 convolution; None for none.
        plain_last_block: whether the last block has neither scaling nor ReLU.
    """

    stem: tuple[Branch, ...] | None
    blocks: tuple[Blocks, Blocks, Blocks]
    reductions: tuple[tuple[Branch, ...], tuple[Branch, ...]]
    features: int | None
    plain_last_block: bool


V1 = Plan(
    stem=None,
    blocks=(
        Blocks(5, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3))), 0.17),
        Blocks(10, (((128, 1),), ((128, 1), (128, (1, 7)), (128, (7, 1)))), 0.1),
        Blocks(5, (((192, 1),), ((192, 1), (192, (1, 3)), (192, (3, 1)))), 0.2),
    ),
    reductions=(
        (((384, 3),), ((192, 1), (192, 3), (256, 3))),
        (((256, 1), (384, 3)), ((256, 1), (256, 3)), ((256, 1), (256, 3), (256, 3))),
    ),
    features=None,
    plain_last_block=False,
)
V2 = Plan(
    stem=(((96, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3))),
    blocks=(
        Blocks(10, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))), 0.17),
        Blocks(20, (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))), 0.1),
        Blocks(10, (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))), 0.2),
    ),
    reductions=(
        (((384, 3),), ((256, 1), (256, 3), (384, 3))),
        (((256, 1), (384, 3)), ((256, 1), (288, 3)), ((256, 1), (288, 3), (320, 3))),
    ),
    features=1536,
    plain_last_block=True,
)


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; "SAME" padding at stride 1 unless told, none at stride 2."""

    features: int
    kernel_size: int | tuple[int, int]
    norm: ModuleDef
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.kernel_size
        x = nn.Conv(
            self.features,
            (size, size) if isinstance(size, int) else size,
            self.stride,
            padding="VALID" if self.stride > 1 else self.padding,
            use_bias=False,
            dtype=x.dtype,
            kernel_init=he_normal,
            name="conv",
        )(x)
        return nn.relu(self.norm(name="norm")(x))


def _branches(
    branches: Sequence[Branch], x: Array, norm: ModuleDef, stride: int = 1
) -> list[Array]:
    """What each branch makes of x; the last convolution of each has the stride."""
    results = []
    for b, branch in enumerate(branches, start=1):
        h = x
        for i, (features, size) in enumerate(branch, start=1):
            last = stride if i == len(branch) else 1
            h = _Conv(features, size, norm, last, name=f"branch{b}_{i}")(h)
        results.append(h)
    return results


class _Block(nn.Module):
    """Adds what its branches make of the stream to the stream."""

    branches: tuple[Branch, ...]
    norm: ModuleDef
    scale: float
    activate: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        mixed = jnp.concatenate(_branches(self.branches, x, self.norm), axis=-1)
        up = nn.Conv(x.shape[-1], (1, 1), dtype=x.dtype, kernel_init=he_normal, name="up")(mixed)
        x = x + self.scale * up
        return nn.relu(x) if self.activate else x


class _Reduction(nn.Module):
    """Branches that halve the resolution, beside max pooling."""

    branches: tuple[Branch, ...]
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: Array) -> Array:
        reduced = _branches(self.branches, x, self.norm, stride=2)
        return jnp.concatenate([*reduced, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class _MixedStem(nn.Module):
    """The branches of v2's stem, beside average pooling with a 1x1 convolution."""

    branches: tuple[Branch, ...]
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: Array) -> Array:
        pooled = nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        pooled = _Conv(64, 1, self.norm, name="pooled")(pooled)
        return jnp.concatenate([*_branches(self.branches, x, self.norm), pooled], axis=-1)


class InceptionResNet(nn.Module):
    """Inception-ResNet, for images of 299x299; without dropout.

    Attributes:
        num_classes: number of classes.
        plan: `V1` or `V2`.
        dtype: dtype of the computation, for example "bfloat16"; None takes that of the images.
            Parameters, statistics and logits stay float32.
        norm_axis_name: mapped axis over which batch statistics are averaged; None keeps them
            per replica.
    """

    num_classes: int
    plan: Plan
    dtype: str | None = None
    norm_axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dtype(self.dtype)

    @property
    def depth(self) -> int:
        """Weighted layers along the longest path."""
        plan = self.plan
        stem = 5 + max(map(len, plan.stem or (((256, 3),),)))
        blocks = sum(b.count * (max(map(len, b.branches)) + 1) for b in plan.blocks)
        reductions = sum(max(map(len, branches)) for branches in plan.reductions)
        return stem + blocks + reductions + (plan.features is not None) + 1

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Logits [B, num_classes] float32 of images [B, H, W, C] float32.

        `train` normalises with the batch's statistics and updates the running averages in the
        collection `batch_stats`.

        Raises:
            UsageError: the images are smaller than 75x75.
        """
        if min(images.shape[1:3]) < _LEAST_IMAGE_SIZE:
            raise UsageError(
                f"images are {images.shape[1]}x{images.shape[2]}: their sides must be at least "
                f"{_LEAST_IMAGE_SIZE} for an Inception-ResNet; use larger images"
            )
        plan = self.plan
        norm: Any = partial(
            BatchNorm,
            use_running_average=not train,
            axis_name=self.norm_axis_name,
            epsilon=1e-3,
        )
        x = to_dtype(images, self.dtype)
        x = _Conv(32, 3, norm, 2, name="stem1")(x)
        x = _Conv(32, 3, norm, padding="VALID", name="stem2")(x)
        x = _Conv(64, 3, norm, name="stem3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = _Conv(80, 1, norm, name="stem4")(x)
        x = _Conv(192, 3, norm, padding="VALID", name="stem5")(x)
        if plan.stem is None:
            x = _Conv(256, 3, norm, 2, name="stem6")(x)
        else:
            x = _MixedStem(plan.stem, norm, name="stem6")(nn.max_pool(x, (3, 3), (2, 2)))
        for stage, blocks in enumerate(plan.blocks, start=1):
            if stage > 1:
                branches = plan.reductions[stage - 2]
                x = _Reduction(branches, norm, name=f"reduction{stage - 1}")(x)
            for i in range(1, blocks.count + 1):
                plain = plan.plain_last_block and stage == 3 and i == blocks.count
                scale = 1.0 if plain else blocks.scale
                name = f"stage{stage}_block{i}"
                x = _Block(blocks.branches, norm, scale, activate=not plain, name=name)(x)
        if plan.features is not None:
            x = _Conv(plan.features, 1, norm, name="last")(x)
        return classify(x, self.num_classes, norm, preactivated=False)
