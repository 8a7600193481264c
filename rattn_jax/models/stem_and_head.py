"""The stem before the stages and the classifier after them, which all networks share."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rattn_jax.errors import UsageError
from rattn_jax.models.layers import Conv
from rattn_jax.models.resampling import max_pool
from rattn_jax.models.units import ModuleDef

Array = jax.Array

STEMS = ("cifar", "cifar_port", "imagenet")
_DTYPES = ("bfloat16", "float32", "float64")  # float16 would need its losses scaled


def stem(
    kind: str, images: Array, norm: ModuleDef, preactivated: bool, pool_padding: int = 0
) -> Array:
    """The layers before the first stage, named "stem" and "stem_norm".

    Args:
        kind: "cifar", a 3x3 convolution to 16 channels, without batch norm of its own before
            pre-activated units; "imagenet", 7x7 with stride 2 to 64, batch norm, ReLU and
            max pooling; or "cifar_port", 3x3 to 32, batch norm and ReLU, as in the network for
            CIFAR of the wiring "port".
        images: [B, H, W, C].
        norm: `layers.BatchNorm`, configured for training or inference.
        preactivated: whether the units after it normalise and activate their input.
        pool_padding: padding of the max pooling.
    """
    if kind == "imagenet":
        x = Conv(64, 7, 2, name="stem")(images)
        return max_pool(nn.relu(norm(name="stem_norm")(x)), pool_padding)
    x = Conv(32 if kind == "cifar_port" else 16, 3, name="stem")(images)
    if kind == "cifar" and preactivated:
        return x
    return nn.relu(norm(name="stem_norm")(x))


def classify(x: Array, num_classes: int, norm: ModuleDef, preactivated: bool) -> Array:
    """Logits [B, num_classes] of the last map [B, H, W, C], float32 at least.

    Batch norm and ReLU where the units leave their output unactivated, average over the map, one
    dense layer: "norm" and "classifier".
    """
    if preactivated:
        x = nn.relu(norm(name="norm")(x))
    x = jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
    return nn.Dense(num_classes, name="classifier")(x)


def to_dtype(images: Array, dtype: str | None) -> Array:
    """Converts images to the dtype of the computation; None does not convert."""
    return images if dtype is None else images.astype(dtype)


def check_dtype(dtype: str | None) -> None:
    """Raises UsageError unless `dtype` is None or one that networks compute in."""
    if dtype == "float64" and jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise UsageError("dtype='float64' needs jax.config.update('jax_enable_x64', True)")
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"dtype={dtype!r}: choose one of {', '.join(_DTYPES)}")
