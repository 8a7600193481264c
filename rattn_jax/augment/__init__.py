"""Augmentation and regularization on the device: pure functions of random keys and images.

    images = augment_images(rngs, images, crop_padding=4, flip=True)      # uint8 to float32
    targets = one_hot_targets(labels, num_classes, smoothing=0.1)
    images, targets = regularize(rngs, normalize(images), targets, mixup=0.2)

All of them work under jit, vmap and shard_map, and compute in float32 or with integers.
"""

from rattn_jax.augment.color import pca_lighting
from rattn_jax.augment.geometry import random_crop, random_flip, random_resized_crop
from rattn_jax.augment.pipeline import augment_images, example_rngs, regularize
from rattn_jax.augment.regularization import cutmix, cutout, mixup, one_hot_targets, random_erasing
from rattn_jax.augment.trivial_augment import trivial_augment

__all__ = [
    "augment_images",
    "cutmix",
    "cutout",
    "example_rngs",
    "mixup",
    "one_hot_targets",
    "pca_lighting",
    "random_crop",
    "random_erasing",
    "random_flip",
    "random_resized_crop",
    "regularize",
    "trivial_augment",
]
