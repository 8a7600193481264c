"""Layers of Residual Attention Networks: convolution, batch norm, pooling, interpolation.

Each layer computes what its plain formulation computes (`flax.linen.Conv`,
`flax.linen.BatchNorm`, `jax.lax.reduce_window`); the tests compare values and gradients with
it. Where the formulation here is another one, a comment gives the reason and the gain that was
measured. All maps are float arrays [batch, height, width, channels].
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rattn_jax.errors import UsageError

Array = jax.Array

# He et al., "Delving deep into rectifiers" (2015), eq. 10: variance 2 / fan_in, not truncated.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Conv(nn.Module):
    """Convolution without bias, with the symmetric padding of the authors' network files.

    Padding is `(kernel_size - 1) // 2` on both sides. Flax's "SAME" differs at stride 2: on
    even maps it pads (0, 1) where the authors pad (1, 1).

    Attributes:
        features: number of output channels.
        kernel_size: side of the square kernel, odd.
        stride: step of the kernel in both directions.
    """

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        size, stride = self.kernel_size, self.stride
        kernel = self.param("kernel", he_normal, (size, size, x.shape[-1], self.features))
        if size == 1:
            # A matrix product: XLA's generic convolution is slow on CPU, and two thirds of
            # the convolutions of these networks are 1x1.
            x = x[:, ::stride, ::stride, :]
            return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        padding = (size - 1) // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def _mean(x: Array, axis_name: str | None) -> Array:
    mean = jnp.mean(x, axis=(0, 1, 2))
    return mean if axis_name is None else lax.pmean(mean, axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[Array, Array, Array]:
    """Batch-normalised x, and the batch's mean and (biased) variance."""
    outputs, _ = _normalize_fwd(x, scale, bias, epsilon, axis_name)
    return outputs


def _normalize_fwd(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], Any]:
    mean = _mean(x, axis_name)
    var = _mean(jnp.square(x - mean), axis_name)
    inverse_std = lax.rsqrt(var + epsilon)
    out = (x - mean) * (inverse_std * scale) + bias
    return (out, mean, var), (x, scale, mean, inverse_std)


def _normalize_bwd(
    epsilon: float, axis_name: str | None, residuals: Any, cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    # No gradient flows through the batch's mean and variance as outputs: they only feed the
    # running averages.
    x, scale, mean, inverse_std = residuals
    dout, _, _ = cotangents
    normalized = (x - mean) * inverse_std
    local_dbias = jnp.sum(dout, axis=(0, 1, 2))
    local_dscale = jnp.sum(dout * normalized, axis=(0, 1, 2))
    count = x.size // x.shape[-1]
    dbias, dscale = local_dbias, local_dscale
    if axis_name is not None:
        dbias, dscale = lax.pmean((dbias, dscale), axis_name)
    dx = (scale * inverse_std) * (dout - dbias / count - normalized * (dscale / count))
    return dx, local_dscale, local_dbias


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


class BatchNorm(nn.Module):
    """Batch normalisation over batch, height and width.

    Variables have the names of `flax.linen.BatchNorm`: parameters `scale` and `bias`, running
    averages `batch_stats/mean` and `batch_stats/var` (biased variance).

    Attributes:
        use_running_average: normalise with the running averages and leave them as they are.
        axis_name: mapped axis over which the statistics are averaged too; None keeps them
            those of the replica.
        epsilon: added to the variance.
        momentum: weight of the old running average.
    """

    use_running_average: bool
    axis_name: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises x [B, H, W, C]."""
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        if self.use_running_average:
            multiplier = scale * lax.rsqrt(running_var.value + self.epsilon)
            return (x - running_mean.value) * multiplier + bias
        axis_name = None if self.is_initializing() else self.axis_name
        out, mean, var = _normalize(x, scale, bias, self.epsilon, axis_name)
        if not self.is_initializing():
            old = self.momentum
            running_mean.value = old * running_mean.value + (1 - old) * lax.stop_gradient(mean)
            running_var.value = old * running_var.value + (1 - old) * lax.stop_gradient(var)
        return out


def max_pool(x: Array) -> Array:
    """3x3 max pooling with stride 2 and no padding, the output size rounded up.

    Windows start at 0, 2, 4, ...; the border cuts the last one off. A side of n becomes
    ceil((n - 3) / 2) + 1: n / 2 for even n, (n - 1) / 2 for odd n.

    Raises:
        UsageError: a side of the map is 1.
    """
    for axis in (1, 2):
        if x.shape[axis] < 2:
            raise UsageError(
                f"cannot pool a map of {x.shape[1]}x{x.shape[2]}: its sides must be at least 2; "
                "use larger images, or fewer model.mask_poolings"
            )
        x = _max_pool_axis(x, axis)
    return x


def _max_pool_axis(x: Array, axis: int) -> Array:
    # One axis after the other, as a maximum of strided slices: the gradient of
    # `lax.reduce_window` (select-and-scatter) is several times slower on CPU. The two differ
    # only in which of several equal values gets the gradient.
    size = x.shape[axis]
    size_out = -(-(size - 3) // 2) + 1
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (0, 2 * size_out + 1 - size, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)

    def window(offset: int) -> Array:
        return lax.slice_in_dim(x, offset, offset + 2 * size_out - 1, stride=2, axis=axis)

    return jnp.maximum(jnp.maximum(window(0), window(1)), window(2))


def interpolate(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear interpolation to `size` (height, width) with aligned corners.

    Output index i reads the input at i * (n_in - 1) / (n_out - 1), linear between neighbours.
    (`jax.image.resize` uses half-pixel centres instead.)
    """
    rows = _interpolation_matrix(x.shape[1], size[0], x.dtype)
    columns = _interpolation_matrix(x.shape[2], size[1], x.dtype)
    return jnp.einsum("oh,bhwc->bowc", rows, jnp.einsum("ow,bhwc->bhoc", columns, x))


def _interpolation_matrix(size_in: int, size_out: int, dtype: Any) -> Array:
    position = jnp.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1))
    distance = jnp.abs(position[:, None] - jnp.arange(size_in))
    return jnp.maximum(0, 1 - distance).astype(dtype)
