"""Networks by name."""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn

from rattn_jax.errors import UsageError
from rattn_jax.models.inception_resnet import V1, V2, InceptionResNet
from rattn_jax.models.residual_attention import ResidualAttentionNetwork
from rattn_jax.models.resnet import ResNet


def _cifar(modules: int, **keywords: Any) -> Any:
    """Attention network for 32x32 images with `modules` modules in each of three stages."""
    return partial(
        ResidualAttentionNetwork,
        modules_per_stage=(modules,) * 3,
        widths=(64, 128, 256),
        **keywords,
    )


def _imagenet(*modules_per_stage: int, unit: str = "preactivation") -> Any:
    """Attention network for images of 224x224 or so."""
    return partial(
        ResidualAttentionNetwork,
        modules_per_stage=modules_per_stage,
        widths=(256, 512, 1024),
        stem="imagenet",
        exit_units=0,
        final_units=3,
        unit=unit,
    )


def _cifar_resnet(units: int, *widths: int, unit: str = "preactivation") -> Any:
    """Residual network for 32x32 images with `units` units in each of three stages."""
    return partial(ResNet, units_per_stage=(units,) * 3, widths=widths, unit=unit)


def _imagenet_resnet(*units_per_stage: int, unit: str) -> Any:
    """Residual network for images of 224x224 or so."""
    return partial(
        ResNet,
        units_per_stage=units_per_stage,
        widths=(256, 512, 1024, 2048),
        unit=unit,
        stem="imagenet",
    )


# The trunk has 20 + 3 (2 p + t) weighted layers for each module (paper, section 4). The authors
# published the ImageNet networks 56 and 92; how the modules of the deeper ones are spread over
# the stages is the convention of GluonCV. attention92_port_cifar is not the paper's: it is the
# network for CIFAR of the PyTorch port tengshaofeng/ResidualAttentionNetwork-pytorch
# (ResidualAttentionModel_92_32input_update).
MODELS: dict[str, Any] = {
    "attention56_cifar": _cifar(1),
    "attention92_cifar": _cifar(2),
    "attention128_cifar": _cifar(3),
    "attention164_cifar": _cifar(4),
    "attention236_cifar": _cifar(6),
    "attention452_cifar": _cifar(6, p=2, t=4, r=3),
    "attention92_port_cifar": partial(
        ResidualAttentionNetwork,
        modules_per_stage=(1, 2, 3),
        widths=(128, 256, 512),
        mask_poolings=(2, 1, 0),
        stem="cifar_port",
        exit_units=0,
        final_units=3,
        final_stride=1,
        wiring="port",
    ),
    "attention56": _imagenet(1, 1, 1),
    "attention92": _imagenet(1, 2, 3),
    "attention128": _imagenet(2, 3, 4),
    "attention164": _imagenet(3, 4, 5),
    "attention200": _imagenet(4, 5, 6),
    "attention236": _imagenet(5, 6, 7),
    "attentionnext56": _imagenet(1, 1, 1, unit="resnext"),
    "attentionnext92": _imagenet(1, 2, 3, unit="resnext"),
    "attentioninception56": _imagenet(1, 1, 1, unit="inception"),
    "resnet164_cifar": _cifar_resnet(18, 64, 128, 256),
    "resnet1001_cifar": _cifar_resnet(111, 64, 128, 256),
    "wrn16_8_cifar": _cifar_resnet(2, 128, 256, 512, unit="wide"),
    "wrn28_10_cifar": _cifar_resnet(4, 160, 320, 640, unit="wide"),
    "resnet152": _imagenet_resnet(3, 8, 36, 3, unit="resnet"),
    "resnet200": _imagenet_resnet(3, 24, 36, 3, unit="preactivation"),
    "resnext101": _imagenet_resnet(3, 4, 23, 3, unit="resnext"),
    "inception_resnet_v1": partial(InceptionResNet, plan=V1),
    "inception_resnet_v2": partial(InceptionResNet, plan=V2),
}


def list_models() -> list[str]:
    """Names that `create_model` knows, sorted."""
    return sorted(MODELS)


def create_model(name: str, num_classes: int, **keywords: Any) -> nn.Module:
    """Creates the network `name`, a `flax.linen.Module`.

    Args:
        name: one of `list_models()`.
        num_classes: number of classes.
        **keywords: attributes of the module that replace those of `name`, for example
            `widths=(16, 32, 64)`.

    Raises:
        UsageError: unknown name or keyword, or an invalid value of a keyword.
    """
    if name not in MODELS:
        raise UsageError(f"model {name!r} is unknown: choose one of {', '.join(list_models())}")
    factory = MODELS[name]
    known = set(inspect.signature(factory).parameters) - {"parent", "name", "num_classes"}
    for keyword in keywords:
        if keyword not in known:
            raise UsageError(
                f"model {name} has no keyword {keyword!r}: it has {', '.join(sorted(known))}"
            )
    return factory(num_classes=num_classes, **keywords)
