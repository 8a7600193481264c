"""Residual Attention Networks: stem, stages of attention modules, classifier."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax import lax

from rattn_jax.errors import UsageError
from rattn_jax.models.attention import (
    MASK_ACTIVATIONS,
    WIRINGS,
    AttentionModule,
    LocalMask,
    SoftMask,
    local_width,
    pool_padding,
)
from rattn_jax.models.layers import BatchNorm, Conv
from rattn_jax.models.scan_params import STACKED, module_names, stack_modules, unstack_modules
from rattn_jax.models.stem_and_head import STEMS, check_dtype, classify, stem, to_dtype
from rattn_jax.models.units import UNITS, ModuleDef

Array = jax.Array

MASK_STRUCTURES = ("encoder_decoder", "local")


class Stage(nn.Module):
    """A unit that sets width and resolution, attention modules, and plain units.

    Attributes:
        features: width of the stage.
        unit: residual unit, configured with its `conv` and `norm`.
        module: `AttentionModule`, configured.
        num_modules: number of attention modules.
        exit_units: number of units after the modules.
        stride: stride of the first unit.
        scan_modules: compile the modules once, as the body of a loop.
    """

    features: int
    unit: ModuleDef
    module: ModuleDef
    num_modules: int
    exit_units: int
    stride: int
    scan_modules: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        x = self.unit(self.features, stride=self.stride, name="entry")(x)
        names = module_names(self.num_modules)
        if self.scan_modules and len(names) > 1 and not self.is_initializing():
            x = self._scan(names, x)
        else:
            for name in names:
                x = self.module(name=name)(x)
        for i in range(1, self.exit_units + 1):
            x = self.unit(self.features, name=f"exit{i}")(x)
        return x

    def _scan(self, names: list[str], x: Array) -> Array:
        module = self.module(parent=None)
        mutable = [c for c in ("batch_stats", "intermediates") if self.is_mutable_collection(c)]
        given = {c: self.variables[c] for c in ("params", "batch_stats")}
        variables = {c: stack_modules(dict(tree))[STACKED] for c, tree in given.items()}

        def body(x: Array, variables: Any) -> tuple[Array, Any]:
            return module.apply(variables, x, mutable=mutable)

        x, updates = lax.scan(body, x, variables)
        for collection, stacked in updates.items():
            tree = {STACKED: stacked}
            if STACKED not in given.get(collection, {}):
                tree = unstack_modules(tree)
            for name, value in tree.items():
                self.put_variable(collection, name, value)
        return x


class ResidualAttentionNetwork(nn.Module):
    """Residual Attention Network (Wang et al., CVPR 2017, section 4 and table 2).

    Stem, stages of attention modules (the second and later ones at half the resolution of the
    one before), for ImageNet plain units of twice the last width, average over the map,
    classifier. With pre-activated units batch norm and ReLU come before the average. Weighted
    layers along the trunk: 36 m + 20 with m modules in each of three stages at p = 1, t = 2.

    Attributes:
        num_classes: number of classes.
        modules_per_stage: attention modules in each stage.
        widths: channels of each stage.
        mask_poolings: poolings in the masks of each stage; with wiring "port", 0 is a mask of
            units only.
        stem: "cifar", "cifar_port" or "imagenet", see `stem_and_head.stem`.
        exit_units: units after the modules of each stage.
        final_units: units of twice the last width after all stages.
        final_stride: stride of the first of them.
        p: units before and after the trunk and mask of a module.
        t: units of a trunk.
        r: units of a mask between two poolings.
        mask_decoder_units: units of a mask before each interpolation; None takes r, which is
            how the paper's figure reads.
        mask_activation: "mixed", "channel" or "spatial" (paper, table 1).
        mask_structure: "encoder_decoder", or "local" of the same cost (paper, table 4).
        attention_residual: (1 + M) * T; False is naive attention learning, M * T.
        unit: "preactivation", "resnext" or "inception", see `units.py`.
        wiring: "paper", or "port" for weights that were trained so elsewhere, see `SoftMask`.
        dtype: dtype of the computation, for example "bfloat16"; None takes that of the images.
            Parameters, statistics and logits stay float32.
        remat: compute the inside of each module again in the backward pass instead of keeping it.
        scan_modules: compile the modules of a stage once, as the body of a loop. Their variables
            can be given apart, which is how `init` makes them, or stacked (`scan_params.py`).
        norm_axis_name: mapped axis over which batch statistics are averaged; None keeps them
            per replica.
    """

    num_classes: int
    modules_per_stage: tuple[int, ...]
    widths: tuple[int, ...]
    mask_poolings: tuple[int, ...] = (3, 2, 1)
    stem: str = "cifar"
    exit_units: int = 1
    final_units: int = 0
    final_stride: int = 2
    p: int = 1
    t: int = 2
    r: int = 1
    mask_decoder_units: int | None = None
    mask_activation: str = "mixed"
    mask_structure: str = "encoder_decoder"
    attention_residual: bool = True
    unit: str = "preactivation"
    wiring: str = "paper"
    dtype: str | None = None
    remat: bool = False
    scan_modules: bool = False
    norm_axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices()
        self._check_numbers()

    def _check_choices(self) -> None:
        for keyword, choices in (
            ("stem", STEMS),
            ("mask_activation", MASK_ACTIVATIONS),
            ("mask_structure", MASK_STRUCTURES),
            ("unit", UNITS),
            ("wiring", WIRINGS),
        ):
            if getattr(self, keyword) not in choices:
                raise UsageError(
                    f"{keyword}={getattr(self, keyword)!r} is unknown: "
                    f"choose one of {', '.join(choices)}"
                )
        check_dtype(self.dtype)
        if self.wiring == "port":
            for keyword, only in (
                ("mask_structure", "encoder_decoder"),
                ("unit", "preactivation"),
            ):
                if getattr(self, keyword) != only:
                    raise UsageError(
                        f"{keyword}={getattr(self, keyword)!r} does not exist with wiring='port': "
                        f"leave it at {only!r}, or use wiring='paper'"
                    )

    def _check_numbers(self) -> None:
        for keyword in ("widths", "modules_per_stage", "mask_poolings"):
            values = tuple(getattr(self, keyword))
            if any(not isinstance(value, int) for value in values):
                raise UsageError(f"{keyword}={values}: must be whole numbers")
            if len(values) != len(self.widths) or not values:
                raise UsageError(
                    f"{keyword}={values} is for {len(values)} stages, and widths="
                    f"{tuple(self.widths)} for {len(self.widths)}: give one value for each stage"
                )
        multiple = UNITS[self.unit].features_multiple
        if any(width < multiple or width % multiple for width in self.widths):
            raise UsageError(
                f"widths={tuple(self.widths)}: must be multiples of {multiple} "
                f"with unit={self.unit!r}"
            )
        for keyword, value, least in (
            ("num_classes", self.num_classes, 1),
            ("modules_per_stage", min(self.modules_per_stage), 0),
            ("mask_poolings", min(self.mask_poolings), 0 if self.wiring == "port" else 1),
            ("exit_units", self.exit_units, 0),
            ("final_units", self.final_units, 0),
            ("final_stride", self.final_stride, 1),
            ("p", self.p, 0),
            ("t", self.t, 1),
            ("r", self.r, 0),
            ("mask_decoder_units", self.mask_decoder_units or 0, 0),
        ):
            if value < least:
                raise UsageError(f"{keyword}={getattr(self, keyword)}: must be at least {least}")

    @property
    def depth(self) -> int:
        """Weighted layers along the trunk: its convolutions, and the classifier."""
        plain_units = len(self.widths) * (1 + self.exit_units) + self.final_units
        module_units = sum(self.modules_per_stage) * (2 * self.p + self.t)
        return 2 + 3 * (plain_units + module_units)

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Logits [B, num_classes] float32 of images [B, H, W, C] float32.

        `train` normalises with the batch's statistics and updates the running averages in the
        collection `batch_stats`.

        Raises:
            UsageError: a map gets too small to be pooled.
        """
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.norm_axis_name)
        unit_class = UNITS[self.unit]
        unit = partial(unit_class, conv=Conv, norm=norm)
        module = partial(
            nn.remat(AttentionModule) if self.remat else AttentionModule,
            unit=unit,
            p=self.p,
            t=self.t,
            attention_residual=self.attention_residual,
        )

        x = to_dtype(images, self.dtype)
        x = stem(self.stem, x, norm, unit_class.preactivated, pool_padding(self.wiring))
        stages = zip(self.widths, self.modules_per_stage, self.mask_poolings, strict=True)
        for i, (width, num_modules, poolings) in enumerate(stages):
            x = Stage(
                features=width,
                unit=unit,
                module=partial(module, mask=self._mask(unit, norm, width, poolings)),
                num_modules=num_modules,
                exit_units=self.exit_units,
                stride=1 if i == 0 else 2,
                scan_modules=self.scan_modules,
                name=f"stage{i + 1}",
            )(x)
        if self.final_units:
            width, name = 2 * self.widths[-1], f"stage{len(self.widths) + 1}"
            stride = self.final_stride
            x = Stage(width, unit, module, 0, self.final_units - 1, stride=stride, name=name)(x)
        return classify(x, self.num_classes, norm, unit_class.preactivated)

    def _mask(self, unit: ModuleDef, norm: ModuleDef, width: int, poolings: int) -> ModuleDef:
        unit_class = UNITS[self.unit]
        shared = {
            "unit": unit,
            "conv": Conv,
            "norm": norm,
            "preactivated": unit_class.preactivated,
            "activation": MASK_ACTIVATIONS[self.mask_activation],
        }
        encoder_units = self.r
        decoder_units = self.r if self.mask_decoder_units is None else self.mask_decoder_units
        if self.mask_structure == "local":
            inner = local_width(unit_class, width, poolings, encoder_units, decoder_units, 1)
            return partial(LocalMask, width=inner, **shared)
        if not poolings:
            units = encoder_units + decoder_units
            return partial(LocalMask, width=None, num_units=units, **shared)
        return partial(
            SoftMask,
            poolings=poolings,
            encoder_units=encoder_units,
            decoder_units=decoder_units,
            wiring=self.wiring,
            **shared,
        )
