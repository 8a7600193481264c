"""Residual Attention Networks: stem, stages of attention modules, classifier."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from rattn_jax.errors import UsageError
from rattn_jax.models.attention import AttentionModule, SoftMask
from rattn_jax.models.layers import BatchNorm, Conv
from rattn_jax.models.units import ModuleDef, PreactivationUnit

Array = jax.Array


class Stage(nn.Module):
    """A unit that sets width and resolution, attention modules, and plain units.

    Attributes:
        features: width of the stage.
        unit: residual unit, configured with its `conv` and `norm`.
        module: `AttentionModule`, configured.
        num_modules: number of attention modules.
        exit_units: number of units after the modules.
        stride: stride of the first unit.
    """

    features: int
    unit: ModuleDef
    module: ModuleDef
    num_modules: int
    exit_units: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        x = self.unit(self.features, stride=self.stride, name="entry")(x)
        for i in range(1, self.num_modules + 1):
            x = self.module(name=f"module{i}")(x)
        for i in range(1, self.exit_units + 1):
            x = self.unit(self.features, name=f"exit{i}")(x)
        return x


class ResidualAttentionNetwork(nn.Module):
    """Residual Attention Network for small images (Wang et al., CVPR 2017, section 4.1).

    A 3x3 convolution to 16 channels without batch norm of its own, the stages (the second and
    later ones at half the resolution of the one before), batch norm, ReLU, average over the
    map, classifier. Weighted layers along the trunk: 36 m + 20 with m modules in each of three
    stages at p = 1, t = 2.

    Attributes:
        num_classes: number of classes.
        modules_per_stage: attention modules in each stage.
        widths: channels of each stage, multiples of 4.
        mask_poolings: poolings in the masks of each stage.
        p: units before and after the trunk and mask of a module.
        t: units of a trunk.
        r: units of a mask between two poolings.
        mask_decoder_units: units of a mask before each interpolation; None takes r, which is
            how the paper's figure reads.
        attention_residual: (1 + M) * T; False is naive attention learning, M * T.
        norm_axis_name: mapped axis over which batch statistics are averaged; None keeps them
            per replica.
    """

    num_classes: int
    modules_per_stage: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256)
    mask_poolings: tuple[int, ...] = (3, 2, 1)
    p: int = 1
    t: int = 2
    r: int = 1
    mask_decoder_units: int | None = None
    attention_residual: bool = True
    norm_axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = len(self.widths)
        for keyword in ("modules_per_stage", "mask_poolings"):
            values = getattr(self, keyword)
            if len(values) != stages:
                raise UsageError(
                    f"{keyword}={tuple(values)} is for {len(values)} stages, and widths="
                    f"{tuple(self.widths)} for {stages}: give one value for each stage"
                )
        for keyword in ("widths", "modules_per_stage", "mask_poolings"):
            if any(not isinstance(value, int) for value in getattr(self, keyword)):
                raise UsageError(f"{keyword}={getattr(self, keyword)}: must be whole numbers")
        if not stages or any(width < 4 or width % 4 for width in self.widths):
            raise UsageError(
                f"widths={tuple(self.widths)}: must be multiples of 4, one for each stage"
            )
        counts = {
            "num_classes": (self.num_classes, 1),
            "modules_per_stage": (min(self.modules_per_stage), 0),
            "mask_poolings": (min(self.mask_poolings), 1),
            "p": (self.p, 0),
            "t": (self.t, 1),
            "r": (self.r, 0),
            "mask_decoder_units": (self.mask_decoder_units or 0, 0),
        }
        for keyword, (value, least) in counts.items():
            if value < least:
                raise UsageError(f"{keyword}={getattr(self, keyword)}: must be at least {least}")

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Logits [B, num_classes] float32 of images [B, H, W, C] float32.

        `train` normalises with the batch's statistics and updates the running averages in the
        collection `batch_stats`.

        Raises:
            UsageError: a map gets too small to be pooled.
        """
        conv = Conv
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.norm_axis_name)
        unit = partial(PreactivationUnit, conv=conv, norm=norm)
        mask = partial(
            SoftMask,
            unit=unit,
            conv=conv,
            norm=norm,
            encoder_units=self.r,
            decoder_units=self.r if self.mask_decoder_units is None else self.mask_decoder_units,
        )
        module = partial(
            AttentionModule,
            unit=unit,
            p=self.p,
            t=self.t,
            attention_residual=self.attention_residual,
        )

        x = conv(16, 3, name="stem")(images)
        stages = zip(self.widths, self.modules_per_stage, self.mask_poolings, strict=True)
        for i, (width, num_modules, poolings) in enumerate(stages):
            x = Stage(
                features=width,
                unit=unit,
                module=partial(module, mask=partial(mask, poolings=poolings)),
                num_modules=num_modules,
                exit_units=1,
                stride=1 if i == 0 else 2,
                name=f"stage{i + 1}",
            )(x)
        x = nn.relu(norm(name="norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)
