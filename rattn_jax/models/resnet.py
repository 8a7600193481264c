"""Residual networks: the paper's baselines ResNet, Wide ResNet and ResNeXt (tables 5 to 7)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax

from rattn_jax.errors import UsageError
from rattn_jax.models.layers import BatchNorm, Conv
from rattn_jax.models.stem_and_head import STEMS, check_dtype, classify, stem, to_dtype
from rattn_jax.models.units import PreactivationUnit, ResNetUnit, ResNeXtUnit, WideUnit

Array = jax.Array

_UNITS: dict[str, Any] = {
    "preactivation": PreactivationUnit,
    "resnet": ResNetUnit,
    "resnext": ResNeXtUnit,
    "wide": WideUnit,
}


class ResNet(nn.Module):
    """Stem, stages of residual units (from the second on at half the resolution), classifier.

    The max pooling of the "imagenet" stem is that of the attention networks, without padding, as
    in the networks' original Caffe files.

    Attributes:
        num_classes: number of classes.
        units_per_stage: residual units in each stage.
        widths: channels of each stage.
        unit: "preactivation", "resnet", "resnext" or "wide", see `units.py`.
        stem: "cifar" or "imagenet", see `stem_and_head.stem`.
        dtype: dtype of the computation, for example "bfloat16"; None takes that of the images.
            Parameters, statistics and logits stay float32.
        norm_axis_name: mapped axis over which batch statistics are averaged; None keeps them
            per replica.
    """

    num_classes: int
    units_per_stage: tuple[int, ...]
    widths: tuple[int, ...]
    unit: str = "preactivation"
    stem: str = "cifar"
    dtype: str | None = None
    norm_axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dtype(self.dtype)
        for key, value, known in (("unit", self.unit, _UNITS), ("stem", self.stem, STEMS)):
            if value not in known:
                raise UsageError(f"{key}={value!r} is unknown: choose one of {', '.join(known)}")
        if not self.widths or len(self.widths) != len(self.units_per_stage):
            raise UsageError(
                f"widths={self.widths} and units_per_stage={self.units_per_stage} must have one "
                "number for each stage"
            )
        least, groups = _UNITS[self.unit].features_multiple, self.unit == "resnext"
        if any(width < least or (groups and width % least) for width in self.widths):
            raise UsageError(
                f"widths={self.widths} must be {'multiples of' if groups else 'at least'} {least}, "
                f"because of unit={self.unit!r}"
            )

    @property
    def depth(self) -> int:
        """Weighted layers, by the count that gives each network its name.

        Those along the longest path; for Wide ResNet its convolutions, projections included.
        """
        units = sum(self.units_per_stage)
        if self.unit == "wide":
            return 1 + 2 * units + len(self.widths)
        return 2 + 3 * units

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Logits [B, num_classes] float32 of images [B, H, W, C] float32.

        `train` normalises with the batch's statistics and updates the running averages in the
        collection `batch_stats`.
        """
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.norm_axis_name)
        unit_class = _UNITS[self.unit]
        x = stem(self.stem, to_dtype(images, self.dtype), norm, unit_class.preactivated)
        stages = zip(self.widths, self.units_per_stage, strict=True)
        for stage, (width, num_units) in enumerate(stages, start=1):
            for i in range(1, num_units + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                unit = unit_class(width, Conv, norm, stride, name=f"stage{stage}_unit{i}")
                x = unit(x)
        return classify(x, self.num_classes, norm, unit_class.preactivated)
