"""What a compiled step is given: images, labels, and the normalization of the images.

data, row = ResidentData(images, labels, normalization), np.array([7, 3])
take(data, row)                          # Batch(images[[7, 3]], labels[[7, 3]])
normalize(images, normalization)         # uint8 to what the network is given, float32
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Normalization(NamedTuple):
    """Images become (images - mean) * scale.

    Attributes:
        mean: float32 that broadcasts with [H, W, C].
        scale: likewise.
    """

    mean: Array | np.ndarray
    scale: Array | np.ndarray


class Batch(NamedTuple):
    """Images and labels.

    Attributes:
        images: uint8 [B, H, W, C].
        labels: int32 [B].
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray


class ResidentData(NamedTuple):
    """A split that lives on the device, whole; steps are told which examples to take.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        normalization: of the images.
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray
    normalization: Normalization


class StreamedData(NamedTuple):
    """What stays on the device of a split that streams; steps are given the batches.

    Attributes:
        normalization: of the images.
    """

    normalization: Normalization


Data = ResidentData | StreamedData


def take(data: Data, row: Any) -> Batch:
    """The batch of a step: `row` has the examples' numbers [B], or is the batch itself."""
    if isinstance(data, ResidentData):
        return Batch(data.images[row], data.labels[row])
    return row


def normalize(images: Array, normalization: Normalization) -> Array:
    """What the network is given: float32 [B, H, W, C] of images uint8 [B, H, W, C]."""
    return (images.astype(jnp.float32) - normalization.mean) * normalization.scale


# Of ImageNet's training images scaled to [0, 1], by colour (facebook/fb.resnet.torch), as the
# normalisation of all networks that were trained on it.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_normalization() -> Normalization:
    """Pixels scaled to [0, 1], minus ImageNet's mean colour, over its standard deviation."""
    mean, std = np.asarray(_IMAGENET_MEAN), np.asarray(_IMAGENET_STD)
    return Normalization((255 * mean).astype(np.float32), (1 / (255 * std)).astype(np.float32))


def zero_one_normalization() -> Normalization:
    """Pixels scaled to [0, 1]."""
    return Normalization(np.zeros(3, np.float32), np.full(3, 1 / 255, np.float32))


FIXED_NORMALIZATIONS = {"imagenet": imagenet_normalization, "zero_one": zero_one_normalization}


def mean_image_normalization(images: np.ndarray) -> Normalization:
    """Minus the mean image; the paper's for CIFAR (section 4.1). images: [N, H, W, C]."""
    mean = np.mean(images, axis=0, dtype=np.float64)
    return Normalization(np.asarray(mean, np.float32), np.ones((), np.float32))
