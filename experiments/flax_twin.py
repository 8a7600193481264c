"""The CIFAR attention networks in idiomatic Flax: a baseline of `benchmark`.

It uses `flax.linen` and `jax.image`, and no code of the package. Its variables have the names and
shapes of the package's networks, so that tests can compare values and gradients.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

_Conv = partial(
    nn.Conv,
    use_bias=False,
    kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
)


class _Unit(nn.Module):
    features: int
    train: bool
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not self.train, momentum=0.9, epsilon=1e-5)
        width, stride = self.features // 4, (self.stride, self.stride)
        activated = nn.relu(norm(name="norm1")(x))
        h = _Conv(width, (1, 1), name="conv1")(activated)
        h = nn.relu(norm(name="norm2")(h))
        h = _Conv(width, (3, 3), stride, padding=1, name="conv2")(h)
        h = nn.relu(norm(name="norm3")(h))
        h = _Conv(self.features, (1, 1), name="conv3")(h)
        if x.shape[-1] != self.features:
            x = _Conv(self.features, (1, 1), stride, name="projection")(activated)
        return x + h


def _max_pool(x: Array) -> Array:
    """3x3 with stride 2, on maps of even size."""
    return nn.max_pool(x, (3, 3), (2, 2), ((0, 1), (0, 1)))


def _interpolate(x: Array, shape: tuple[int, ...]) -> Array:
    """Bilinear to height and width of `shape` [B, H, W, C], with aligned corners."""
    scale = jnp.array([(shape[i] - 1) / (x.shape[i] - 1) for i in (1, 2)])
    return jax.image.scale_and_translate(
        x, shape, (1, 2), scale, 0.5 - 0.5 * scale, "linear", antialias=False
    )


class _Mask(nn.Module):
    poolings: int
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = x.shape[-1]
        unit = partial(_Unit, features, self.train)
        encoded = [x]
        for level in range(1, self.poolings + 1):
            encoded.append(unit(name=f"encoder{level}_unit1")(_max_pool(encoded[-1])))
        h = encoded.pop()
        for level in range(self.poolings, 0, -1):
            h = unit(name=f"decoder{level}_unit1")(h)
            above = encoded.pop()
            h = _interpolate(h, above.shape)
            if level > 1:
                h = h + unit(name=f"skip{level - 1}_unit1")(above)
        for i in (1, 2):
            norm = nn.BatchNorm(not self.train, momentum=0.9, epsilon=1e-5, name=f"norm{i}")
            h = _Conv(features, (1, 1), name=f"linear{i}")(nn.relu(norm(h)))
        return nn.sigmoid(h)


class _Module(nn.Module):
    poolings: int
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(_Unit, x.shape[-1], self.train)
        x = unit(name="pre_unit1")(x)
        trunk = unit(name="trunk_unit2")(unit(name="trunk_unit1")(x))
        mask = _Mask(self.poolings, self.train, name="mask")(x)
        return unit(name="post_unit1")((1 + mask) * trunk)


class _Stage(nn.Module):
    features: int
    num_modules: int
    poolings: int
    stride: int
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = _Unit(self.features, self.train, self.stride, name="entry")(x)
        for i in range(1, self.num_modules + 1):
            x = _Module(self.poolings, self.train, name=f"module{i}")(x)
        return _Unit(self.features, self.train, name="exit1")(x)


class FlaxTwin(nn.Module):
    """The network of `rattn_jax.create_model("attention56_cifar", num_classes)` or a deeper one.

    Attributes:
        num_classes: number of classes.
        num_modules: attention modules in each of the three stages; 1 for Attention-56.
        widths: channels of the stages.
    """

    num_classes: int
    num_modules: int = 1
    widths: tuple[int, int, int] = (64, 128, 256)

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Any:
        """Logits [B, num_classes] float32 of images [B, H, W, 3], sides a multiple of 8."""
        x = _Conv(16, (3, 3), padding=1, name="stem")(images)
        for i, features in enumerate(self.widths):
            stride = 1 if i == 0 else 2
            stage = _Stage(features, self.num_modules, 3 - i, stride, train, name=f"stage{i + 1}")
            x = stage(x)
        norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm")
        x = jnp.mean(nn.relu(norm(x)), axis=(1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)
