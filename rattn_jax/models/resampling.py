"""Max pooling and bilinear interpolation, as in the authors' network files.

All maps are float arrays [batch, height, width, channels].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rattn_jax.errors import UsageError

Array = jax.Array


def max_pool(x: Array, padding: int = 0) -> Array:
    """3x3 max pooling with stride 2, the output size rounded up.

    Windows start at -padding, 2 - padding, 4 - padding, ...; the border cuts those off that reach
    over it. Without padding, as in the authors' files, a side of n becomes
    ceil((n - 3) / 2) + 1: n / 2 for even n, (n - 1) / 2 for odd n. With padding 1 it becomes
    ceil(n / 2), as in PyTorch with that padding.

    Raises:
        UsageError: a side of the map is 1.
    """
    if min(x.shape[1:3]) < 2:
        raise UsageError(
            f"cannot pool a map of {x.shape[1]}x{x.shape[2]}: its sides must be at least 2; "
            "use larger images, or fewer model.mask_poolings"
        )
    return _max_pool_axis(_max_pool_axis(x, 1, padding), 2, padding)


def _max_pool_axis(x: Array, axis: int, padding_before: int) -> Array:
    # One axis after the other, as a maximum of strided slices: the gradient of
    # `lax.reduce_window` (select-and-scatter) is several times slower on CPU. The two differ
    # only in which of several equal values gets the gradient.
    size = padding_before + x.shape[axis]
    size_out = -(-(size - 3) // 2) + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (padding_before, 2 * size_out + 1 - size)
    x = jnp.pad(x, padding, constant_values=-jnp.inf)

    def window(offset: int) -> Array:
        return lax.slice_in_dim(x, offset, offset + 2 * size_out - 1, stride=2, axis=axis)

    return jnp.maximum(jnp.maximum(window(0), window(1)), window(2))


def interpolate(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear interpolation to `size` (height, width) with aligned corners.

    Output index i reads the input at i * (n_in - 1) / (n_out - 1), linear between neighbours.
    (`jax.image.resize` uses half-pixel centres instead.)
    """
    rows = jnp.asarray(_interpolation_matrix(x.shape[1], size[0]), x.dtype)
    columns = jnp.asarray(_interpolation_matrix(x.shape[2], size[1]), x.dtype)
    # Few operations, so that even accelerators can afford them at full precision.
    x = jnp.einsum("ow,bhwc->bhoc", columns, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("oh,bhwc->bowc", rows, x, precision=lax.Precision.HIGHEST)


def _interpolation_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Weights [size_out, size_in] float64 of the inputs in each output."""
    position = np.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1))
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size_in)))
