"""Pillow's operations on one uint8 image [H, W, 1 or 3], as functions that compile.

Each gives what the function of Pillow that it names gives for mode "L" or "RGB": exactly where
that computes with integers, and up to one level (of 255) where it computes with floats.
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def autocontrast(image: Array) -> Array:
    """Each channel stretched to 0..255 (`ImageOps.autocontrast`)."""
    levels = image.astype(jnp.int32)
    low = jnp.min(levels, axis=(0, 1))
    span = jnp.max(levels, axis=(0, 1)) - low
    stretched = (levels - low) * 255 // jnp.maximum(span, 1)
    return jnp.where(span > 0, stretched, levels).astype(jnp.uint8)


def equalize(image: Array) -> Array:
    """Each channel with a flat histogram (`ImageOps.equalize`)."""

    def channel(levels: Array) -> Array:
        counts = jnp.bincount(levels.ravel(), length=256)
        step = (levels.size - counts[jnp.max(levels)]) // 255
        below = jnp.cumsum(counts) - counts
        table = (step // 2 + below) // jnp.maximum(step, 1)
        flat = jnp.minimum(table, 255)[levels]
        return jnp.where(step > 0, flat, levels).astype(jnp.uint8)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def solarize(image: Array, threshold: Array | float) -> Array:
    """Levels from `threshold` on inverted (`ImageOps.solarize`)."""
    return jnp.where(image < threshold, image, 255 - image)


def posterize(image: Array, bits: Array | int) -> Array:
    """Only the highest `bits`, of 8, of each level (`ImageOps.posterize`)."""
    shift = jnp.asarray(8 - bits, jnp.uint8)
    return (image >> shift) << shift


def color(image: Array, factor: Array | float) -> Array:
    """From grey (factor 0) to more colourful than it is (above 1) (`ImageEnhance.Color`)."""
    return _blend(_grey(image), image, factor)


def contrast(image: Array, factor: Array | float) -> Array:
    """From the mean grey (0) to more contrast than it has (above 1) (`ImageEnhance.Contrast`)."""
    grey = _grey(image)
    mean = (2 * jnp.sum(grey) + grey.size) // (2 * grey.size)  # rounded half up
    return _blend(mean, image, factor)


def brightness(image: Array, factor: Array | float) -> Array:
    """From black (0) to brighter than it is (above 1) (`ImageEnhance.Brightness`)."""
    return _blend(jnp.int32(0), image, factor)


def sharpness(image: Array, factor: Array | float) -> Array:
    """From smooth (0) to sharper than it is (above 1) (`ImageEnhance.Sharpness`)."""
    height, width, _ = image.shape
    levels = image.astype(jnp.int32)
    total = 4 * levels[1:-1, 1:-1]  # Pillow's SMOOTH: the neighbours, and 5 times the pixel, by 13
    for row in range(3):
        for column in range(3):
            total += levels[row : row + height - 2, column : column + width - 2]
    smooth = levels.at[1:-1, 1:-1].set((total + 6) // 13)  # the border stays
    return _blend(smooth, image, factor)


def affine(image: Array, matrix: Array) -> Array:
    """The image at other places: `Image.transform` with AFFINE and NEAREST; black outside.

    Args:
        image: uint8 [H, W, C].
        matrix: float32 [2, 3]; the result at (x, y) is the image at `matrix @ (x, y, 1)`, where x
            is to the right, y is down, and the middle of the first pixel is (0.5, 0.5).
    """
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    (a, b, c), (d, e, f) = matrix
    column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
    row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    moved = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], moved, 0).astype(jnp.uint8)


def rotate(image: Array, degrees: Array | float) -> Array:
    """Counter-clockwise around the middle (`Image.rotate` with NEAREST).

    Pillow computes positions in fixed point, so that a few pixels halfway between two others
    differ: at most 23 of 32x32 at any whole angle, when compiled at 135 degrees.
    """
    height, width, _ = image.shape
    x, y = width / 2, height / 2
    angle = jnp.asarray(degrees, jnp.float32) * (math.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
    return affine(image, jnp.array(matrix))


def shear_x(image: Array, slope: Array | float) -> Array:
    """Row y moved to the left by slope * y."""
    return affine(image, jnp.array([[1, slope, 0], [0, 1, 0]], jnp.float32))


def shear_y(image: Array, slope: Array | float) -> Array:
    """Column x moved up by slope * x."""
    return affine(image, jnp.array([[1, 0, 0], [slope, 1, 0]], jnp.float32))


def translate_x(image: Array, pixels: Array | float) -> Array:
    """The image moved to the left."""
    return affine(image, jnp.array([[1, 0, pixels], [0, 1, 0]], jnp.float32))


def translate_y(image: Array, pixels: Array | float) -> Array:
    """The image moved up."""
    return affine(image, jnp.array([[1, 0, 0], [0, 1, pixels]], jnp.float32))


def _grey(image: Array) -> Array:
    """Luma int32 [H, W, 1] (`Image.convert("L")`: ITU-R 601-2 in 16 bits)."""
    levels = image.astype(jnp.int32)
    if image.shape[-1] == 1:
        return levels
    red, green, blue = jnp.split(levels, 3, axis=-1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blend(degenerate: Array, image: Array, factor: Array | float) -> Array:
    """`degenerate` at 0, the image at 1, beyond it above (`Image.blend`): truncated, clipped."""
    low = degenerate.astype(jnp.float32)
    blended = low + factor * (image.astype(jnp.float32) - low)
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)
