"""Random crops and flips of one image."""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def random_crop(rng: Array, image: Array, padding: int) -> Array:
    """Pads the image with zeros, and crops it at a random position to its own size.

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
    """Flips the image [H, W, C] left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(rng), image[:, ::-1], image)


def random_resized_crop(
    rng: Array,
    image: Array,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Array:
    """Crops a random box of the image, and resizes it to the size of the image (bilinear).

    This is the scale and aspect ratio augmentation of Szegedy et al. (2015, section 6) without
    repeated draws: a box that is wider or higher than the image is clipped to it.

    Args:
        rng: random key.
        image: [H, W, C], uint8 or float.
        area: minimum and maximum fraction of the area, drawn uniformly (Szegedy et al.).
        aspect_ratio: minimum and maximum width / height, log-uniform (Szegedy et al.).

    Returns:
        [H, W, C] of the same dtype; integers are rounded.
    """
    height, width, _ = image.shape
    size = jnp.array([height, width], jnp.float32)
    share, skew, down, right = jax.random.uniform(rng, (4,))
    pixels = height * width * (area[0] + (area[1] - area[0]) * share)
    low, high = (math.log(ratio) for ratio in aspect_ratio)
    ratio = jnp.exp(low + (high - low) * skew)
    box = jnp.minimum(jnp.sqrt(pixels * jnp.stack([1 / ratio, ratio])), size)  # height, width
    corner = jnp.stack([down, right]) * (size - box)  # top, left
    scale = size / box
    out = jax.image.scale_and_translate(
        image.astype(jnp.float32), image.shape, (0, 1), scale, -corner * scale, method="linear"
    )
    if jnp.issubdtype(image.dtype, jnp.integer):
        out = jnp.round(out)
    return out.astype(image.dtype)
