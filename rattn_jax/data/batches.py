"""Inputs of the compiled steps: batches, resident data, normalization.

data, row = ResidentData(images, labels, normalization), np.array([7, 3])
take(data, row)                          # Batch(images[[7, 3]], labels[[7, 3]])
normalize(images, normalization)         # uint8 to float32, the input of the network
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_NO_SEED = np.uint32(0)


class Normalization(NamedTuple):
    """Normalization: (images - mean) * scale.

    Attributes:
        mean: float32 that broadcasts with [H, W, C].
        scale: float32 that broadcasts with [H, W, C].
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
    """A whole split on the device; steps get indices of its examples.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        normalization: normalization of the images.
        seed: of augmentation, uint32 scalar; an argument of the compiled step, so that runs with
            other seeds need not compile it again.
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray
    normalization: Normalization
    seed: Array | np.generic = _NO_SEED


class StreamedData(NamedTuple):
    """The resident part of a streamed split; steps get the batches.

    Attributes:
        normalization: normalization of the images.
        seed: see `ResidentData`.
    """

    normalization: Normalization
    seed: Array | np.generic = _NO_SEED


Data = ResidentData | StreamedData


def take(data: Data, row: Any) -> Batch:
    """The batch of a step: `row` has the indices of its examples [B], or is the batch itself."""
    if isinstance(data, ResidentData):
        return Batch(data.images[row], data.labels[row])
    return row


def normalize(images: Array, normalization: Normalization) -> Array:
    """Converts images uint8 [B, H, W, C] to the input of the network, float32 [B, H, W, C]."""
    return (images.astype(jnp.float32) - normalization.mean) * normalization.scale


# Statistics of ImageNet's training images scaled to [0, 1], by color (facebook/fb.resnet.torch).
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_normalization() -> Normalization:
    """Scales to [0, 1], subtracts ImageNet's mean color and divides by its standard deviation."""
    mean, std = np.asarray(_IMAGENET_MEAN), np.asarray(_IMAGENET_STD)
    return Normalization((255 * mean).astype(np.float32), (1 / (255 * std)).astype(np.float32))


def zero_one_normalization() -> Normalization:
    """Scales to [0, 1]."""
    return Normalization(np.zeros(3, np.float32), np.full(3, 1 / 255, np.float32))


FIXED_NORMALIZATIONS = {"imagenet": imagenet_normalization, "zero_one": zero_one_normalization}


def mean_image_normalization(images: np.ndarray) -> Normalization:
    """Subtracts the mean of images [N, H, W, C], as the paper does for CIFAR (section 4.1)."""
    mean = np.mean(images, axis=0, dtype=np.float64)
    return Normalization(np.asarray(mean, np.float32), np.ones((), np.float32))
