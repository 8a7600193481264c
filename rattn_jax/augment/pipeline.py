"""Augmentation and regularization of a batch in order, and the random keys.

The key of an example is a function of seed, step and its position in the batch (`example_rngs`), so
that a run sees the same images on any number of devices.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rattn_jax.augment import color, geometry, regularization
from rattn_jax.augment.trivial_augment import trivial_augment as one_operation

Array = jax.Array

# Folded into the key of an example for each use. `jax.random.split` gives those of 0 and
# 1, which are for random_crop and random_flip.
_RESIZED_CROP, _TRIVIAL_AUGMENT, _LIGHTING, _CUTOUT, _ERASING, _MIXING = range(2, 8)


def example_rngs(seed: Any, step: Array, positions: Array) -> Array:
    """One random key for each example of a batch.

    Args:
        seed: seed of the run, from 0 to 2**32 - 1.
        step: number of updates done, int32 scalar.
        positions: positions of the examples in the global batch, int32 [B].

    Returns:
        Keys [B].
    """
    rng = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, positions)


def augment_images(
    rngs: Array,
    images: Array,
    *,
    crop_padding: int = 0,
    resized_crop_area: tuple[float, float] | None = None,
    flip: bool = False,
    trivial_augment: bool = False,
    lighting: float = 0.0,
) -> Array:
    """Augments each image by itself: `resized_crop_area`, then in the order of the arguments.

    Args:
        rngs: random keys [B].
        images: uint8 [B, H, W, C].
        crop_padding: pixels, see `random_crop`; 0 is off.
        resized_crop_area: area of `random_resized_crop`; None is off.
        flip: whether to use `random_flip`.
        trivial_augment: whether to use `trivial_augment`.
        lighting: standard deviation of `pca_lighting`; 0 is off.

    Returns:
        float32 [B, H, W, C] on the scale 0 to 255.
    """

    def augment(rng: Array, image: Array) -> Array:
        if resized_crop_area:
            key = jax.random.fold_in(rng, _RESIZED_CROP)
            image = geometry.random_resized_crop(key, image, area=resized_crop_area)
        if crop_padding:
            image = geometry.random_crop(jax.random.split(rng)[0], image, crop_padding)
        if flip:
            image = geometry.random_flip(jax.random.split(rng)[1], image)
        if trivial_augment:
            image = one_operation(jax.random.fold_in(rng, _TRIVIAL_AUGMENT), image)
        image = image.astype(jnp.float32)
        if lighting:
            image = color.pca_lighting(jax.random.fold_in(rng, _LIGHTING), image, lighting)
        return image

    return jax.vmap(augment)(rngs, images)


def regularize(
    rngs: Array,
    images: Array,
    targets: Array,
    *,
    cutout: int = 0,
    erasing: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    mixing: Array | bool = True,
) -> tuple[Array, Array]:
    """Erases parts of images, then mixes images and targets. All off: nothing changes.

    Examples are mixed within the given batch, which is the shard of a replica, with random numbers
    from the key of its first example. Results of mixing therefore depend on the number of devices.

    Args:
        rngs: random keys [B], the same as for `augment_images`.
        images: normalised, float [B, H, W, C].
        targets: float [B, K].
        cutout: side of the square in pixels, see `cutout`; 0 is off.
        erasing: probability of `random_erasing`; 0 is off.
        mixup: alpha of `mixup`; 0 is off.
        cutmix: alpha of `cutmix`; 0 is off. With both, a batch has one or the other, each half of
            the time.
        mixing: whether this batch is mixed at all, a boolean scalar.

    Returns:
        Images float [B, H, W, C] and targets float [B, K].
    """

    def erase(rng: Array, image: Array) -> Array:
        if cutout:
            image = regularization.cutout(jax.random.fold_in(rng, _CUTOUT), image, cutout)
        if erasing:
            image = regularization.random_erasing(jax.random.fold_in(rng, _ERASING), image, erasing)
        return image

    if cutout or erasing:
        images = jax.vmap(erase)(rngs, images)
    if not (mixup or cutmix):
        return images, targets
    choice_rng, mixing_rng = jax.random.split(jax.random.fold_in(rngs[0], _MIXING))
    by_mixup = partial(regularization.mixup, mixing_rng, alpha=mixup)
    by_cutmix = partial(regularization.cutmix, mixing_rng, alpha=cutmix)
    if mixup and cutmix:
        mixed = jax.lax.cond(jax.random.bernoulli(choice_rng), by_mixup, by_cutmix, images, targets)
    else:
        mixed = by_mixup(images, targets) if mixup else by_cutmix(images, targets)
    return jax.tree.map(partial(jnp.where, mixing), mixed, (images, targets))
