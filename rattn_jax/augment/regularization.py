"""Random rectangles of one image set to zero, which is the mean of normalised images."""

import jax
import jax.numpy as jnp

Array = jax.Array

_AREA = (0.02, 0.4)  # share of the image (Zhong et al. 2020, section 4.1)
_ASPECT_RATIO = (0.3, 1 / 0.3)  # height / width (likewise)


def in_box(shape: tuple[int, ...], corner: Array, size: Array) -> Array:
    """True inside of a rectangle, bool [H, W, 1].

    Args:
        shape: height and width of the image, and anything after them.
        corner: first row and column, integers [2]; may lie outside of the image.
        size: height and width, integers [2].
    """
    rows, columns = (jnp.arange(length) for length in shape[:2])
    in_rows = (rows >= corner[0]) & (rows < corner[0] + size[0])
    in_columns = (columns >= corner[1]) & (columns < corner[1] + size[1])
    return (in_rows[:, None] & in_columns)[..., None]


def cutout(rng: Array, image: Array, size: int) -> Array:
    """The image with a square around a random pixel set to zero (DeVries & Taylor 2017).

    Args:
        rng: random key.
        image: [H, W, C], normalised.
        size: side of the square in pixels, of which what lies outside of the image has no effect.

    Returns:
        [H, W, C] of the same dtype.
    """
    center = jax.random.randint(rng, (2,), 0, jnp.array(image.shape[:2]))
    box = in_box(image.shape, center - size // 2, jnp.array([size, size]))
    return jnp.where(box, 0, image)


def random_erasing(rng: Array, image: Array, probability: float) -> Array:
    """The image, with a given probability with a random rectangle set to zero (Zhong et al. 2020).

    The paper draws again until the rectangle fits; here it is clipped to the image's size. Zero is
    its filling with the mean value (RE-M), which does not depend on the images' normalisation.

    Args:
        rng: random key.
        image: [H, W, C], normalised.
        probability: of erasing; 0.5 in the paper cited.

    Returns:
        [H, W, C] of the same dtype.
    """
    height, width, _ = image.shape
    erase_rng, size_rng, place_rng = jax.random.split(rng, 3)
    low, high = (jnp.array(pair) for pair in zip(_AREA, _ASPECT_RATIO, strict=True))
    area, ratio = low + (high - low) * jax.random.uniform(size_rng, (2,))
    size = jnp.sqrt(height * width * area * jnp.stack([ratio, 1 / ratio]))  # height, width
    size = jnp.clip(jnp.round(size).astype(jnp.int32), 1, jnp.array([height, width]))
    corner = jax.random.randint(place_rng, (2,), 0, jnp.array([height, width]) - size + 1)
    erased = jnp.where(in_box(image.shape, corner, size), 0, image)
    return jnp.where(jax.random.bernoulli(erase_rng, probability), erased, image)
