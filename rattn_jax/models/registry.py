"""Networks by name."""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn

from rattn_jax.errors import UsageError
from rattn_jax.models.residual_attention import ResidualAttentionNetwork


def _cifar(modules: int, **keywords: Any) -> Any:
    return partial(ResidualAttentionNetwork, modules_per_stage=(modules,) * 3, **keywords)


MODELS: dict[str, Any] = {
    "attention56_cifar": _cifar(1),
    "attention92_cifar": _cifar(2),
    "attention128_cifar": _cifar(3),
    "attention164_cifar": _cifar(4),
    "attention236_cifar": _cifar(6),
    "attention452_cifar": _cifar(6, p=2, t=4, r=3),
}


def list_models() -> list[str]:
    """Names that `create_model` knows, sorted."""
    return sorted(MODELS)


def create_model(name: str, num_classes: int, **keywords: Any) -> nn.Module:
    """The network called `name`, as a `flax.linen.Module`.

    Args:
        name: one of `list_models()`.
        num_classes: number of classes.
        **keywords: attributes of the module to set otherwise than `name` does, for example
            `widths=(16, 32, 64)`.

    Raises:
        UsageError: unknown name or keyword, or a keyword's value that the network cannot have.
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
