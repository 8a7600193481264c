"""Image augmentation on the device: pure functions of (rng, image), for one image each.

    images = jax.vmap(partial(random_crop, padding=4))(rngs, images)

The rng of an image is a function of seed, step and position in the batch (`example_rngs`), so
that the same run sees the same images on any number of devices.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def example_rngs(seed: int, step: Array, positions: Array) -> Array:
    """One random key for each example of a batch.

    Args:
        seed: seed of the run.
        step: number of updates done, int32 scalar.
        positions: places of the examples in the global batch, int32 [B].

    Returns:
        Keys [B].
    """
    rng = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, positions)


def random_crop(rng: Array, image: Array, padding: int) -> Array:
    """Crop of the image's own size at a random place of the image padded with zeros.

    Args:
        rng: random key.
        image: [H, W, C], any dtype.
        padding: pixels added on each side; 4 in the paper (section 4.1).

    Returns:
        [H, W, C] of the same dtype.
    """
    height, width, channels = image.shape
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    row, column = jax.random.randint(rng, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), (height, width, channels))


def random_flip(rng: Array, image: Array) -> Array:
    """The image [H, W, C] or, with probability 1/2, its mirror image (left and right swapped)."""
    return jnp.where(jax.random.bernoulli(rng), image[:, ::-1], image)


def crop_and_flip(rngs: Array, images: Array, *, crop_padding: int, flip: bool) -> Array:
    """The paper's augmentation for CIFAR: pad, crop, and flip half of the images.

    Args:
        rngs: random keys [B].
        images: [B, H, W, C], any dtype.
        crop_padding: see `random_crop`; 0 does not crop.
        flip: whether to use `random_flip`.

    Returns:
        [B, H, W, C] of the same dtype.
    """

    def augment(rng: Array, image: Array) -> Array:
        crop_rng, flip_rng = jax.random.split(rng)
        if crop_padding:
            image = random_crop(crop_rng, image, crop_padding)
        if flip:
            image = random_flip(flip_rng, image)
        return image

    return jax.vmap(augment)(rngs, images)
