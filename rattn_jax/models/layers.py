"""The layers with parameters: convolution and batch norm.

Each computes what `flax.linen.Conv` and `flax.linen.BatchNorm` compute, and the tests compare
values and gradients with them; where the formulation is another one, a comment gives the reason.
The factors there are those of a train step of Attention-56 for CIFAR on two cores; what they make
together, `experiments/benchmark/` measures. All maps are float arrays [batch, height, width,
channels]; a layer computes in the dtype of the map that it gets.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


def he_normal(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Initial kernel of variance 2 / fan_in, not truncated (He et al., 2015, eq. 10).

    The numbers are those of `flax.linen.initializers.variance_scaling(2.0, "fan_in", "normal")`.

    Args:
        key: random key.
        shape: [..., channels in, channels out].
        dtype: dtype of the kernel.
    """
    # The first numbers of a long vector are those of a short one. Vectors of few sizes are drawn,
    # because it takes half a second to compile the function for each of them.
    size, drawn = math.prod(shape), 2**16
    while drawn < size:
        drawn *= 4
    return _kernel_of(jax.random.normal(key, (drawn,), dtype), tuple(shape))


@partial(jax.jit, static_argnames="shape")
def _kernel_of(values: Array, shape: tuple[int, ...]) -> Array:
    """He's kernel of numbers drawn from the standard normal distribution, as one small function."""
    deviation = jnp.asarray(math.sqrt(2 / math.prod(shape[:-1])), values.dtype)
    return values[: math.prod(shape)].reshape(shape) * deviation


class Conv(nn.Module):
    """Convolution without bias, with the symmetric padding of the authors' network files.

    Padding is `(kernel_size - 1) // 2` on both sides. Flax's "SAME" differs at stride 2: on
    even maps it pads (0, 1) where the authors pad (1, 1).

    Attributes:
        features: number of output channels.
        kernel_size: side of the square kernel, odd.
        stride: step of the kernel in both directions.
        groups: number of groups of channels that are convolved apart.
    """

    features: int
    kernel_size: int
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        size, stride = self.kernel_size, self.stride
        shape = (size, size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he_normal, shape, jnp.float32).astype(x.dtype)
        if size == 1 and self.groups == 1:
            return _pointwise(x[:, ::stride, ::stride, :], kernel[0, 0])
        if stride == 1 and self.groups == 1:
            return _convolve_equal_size(x, kernel)
        return convolve(x, kernel, stride, self.groups)


def convolve(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """What `Conv` computes: x [B, H, W, C], kernel [k, k, C / groups, features]."""
    padding = (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _rows(x: Array) -> Array:
    """[..., C] as a matrix [N, C]."""
    return x.reshape(-1, x.shape[-1])


def _sum_of_outer_products(a: Array, b: Array) -> Array:
    """a^T b of a [N, A] and b [N, B]: [A, B]."""
    # The narrower matrix must be the transposed one: the other way is 3.5 times slower on CPU
    # for N, A, B = 65536, 64, 16. Without the barrier XLA turns it round again.
    if a.shape[1] > b.shape[1]:
        return lax.optimization_barrier(_sum_of_outer_products(b, a)).T
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


# 1x1 convolution as a product of matrices: XLA's generic convolution is slow on CPU, and two
# thirds of the convolutions are 1x1. Its gradients are products of two-dimensional arrays too:
# with those that JAX derives from a product over batch, height and width, XLA transposes the maps
# in memory and a train step takes 1.5 times as long.
@jax.custom_vjp
def _pointwise(x: Array, kernel: Array) -> Array:
    return (_rows(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _pointwise_fwd(x: Array, kernel: Array) -> tuple[Array, Any]:
    return _pointwise(x, kernel), (x, kernel)


def _pointwise_bwd(residuals: Any, dout: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = lax.dot_general(_rows(dout), kernel, (((1,), (1,)), ((), ())))
    return dx.reshape(x.shape), _sum_of_outer_products(_rows(x), _rows(dout))


_pointwise.defvjp(_pointwise_fwd, _pointwise_bwd)


@jax.custom_vjp
def _convolve_equal_size(x: Array, kernel: Array) -> Array:
    return convolve(x, kernel)


def _convolve_equal_size_fwd(x: Array, kernel: Array) -> tuple[Array, Any]:
    return convolve(x, kernel), (x, kernel)


def _convolve_equal_size_bwd(residuals: Any, dout: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(
        *residuals, dout, cpu=_convolution_gradients_on_cpu, default=_convolution_gradients
    )


_convolve_equal_size.defvjp(_convolve_equal_size_fwd, _convolve_equal_size_bwd)


def _convolution_gradients(x: Array, kernel: Array, dout: Array) -> tuple[Array, Array]:
    return jax.vjp(convolve, x, kernel)[1](dout)


# On CPU, XLA computes the gradient of a kernel as a convolution of transposed maps, with which a
# train step takes 1.14 times as long; inside `lax.scan` it is 90 times slower than that. One
# product of matrices avoids both: with x shifted horizontally and dout shifted vertically, their
# channels side by side, all taps of the kernel are blocks of one [k * features, k * C] matrix.
def _convolution_gradients_on_cpu(x: Array, kernel: Array, dout: Array) -> tuple[Array, Array]:
    dx = convolve(dout, kernel[::-1, ::-1].swapaxes(2, 3))
    size, _, channels, features = kernel.shape
    blocks = _sum_of_outer_products(
        _rows(_shifts(dout, size, axis=1)), _rows(_shifts(x, size, axis=2))
    )
    # dout moved down by one row meets x one row below its place: the rows come out reversed.
    blocks = blocks.reshape(size, features, size, channels)[::-1]
    return dx, blocks.transpose(0, 2, 3, 1)


def _shifts(x: Array, count: int, axis: int) -> Array:
    """Copies of x moved by -(count // 2) ... count // 2 along `axis`, side by side as channels."""
    size = x.shape[axis]
    padding = [(0, 0)] * x.ndim
    padding[axis] = (count // 2, count // 2)
    x = jnp.pad(x, padding)
    return jnp.concatenate(
        [lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(count)], axis=-1
    )


def _statistics_dtype(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _mean(x: Array, axis_name: str | None) -> Array:
    mean = jnp.mean(x, axis=(0, 1, 2), dtype=_statistics_dtype(x))
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _statistics_in_two_passes(
    x: Array, center: Array, *, axis_name: str | None
) -> tuple[Array, Array]:
    mean = _mean(x, axis_name)
    return mean, _mean(jnp.square(x - mean), axis_name)


# An accelerator reads the map once for both sums, in one kernel. `center` keeps the difference of
# the two from cancelling where the mean is large beside the standard deviation.
def _statistics_in_one_pass(
    x: Array, center: Array, *, axis_name: str | None
) -> tuple[Array, Array]:
    centred = x - center
    mean, square = _mean(centred, axis_name), _mean(jnp.square(centred), axis_name)
    return center + mean, jnp.maximum(square - jnp.square(mean), 0)


# The vectors of a normalisation are computed first, and then one multiplication and addition a
# value. Were x - mean a term instead, XLA on CPU would write it to memory and keep it for the
# backward pass: a train step would take 1.05 to 1.2 times as long, depending on the speed of
# memory. On an accelerator the vectors would only be kernels of their own.
def _compute_first_on_cpu(*vectors: Array) -> tuple[Array, ...]:
    return lax.platform_dependent(
        *vectors, cpu=lambda *v: lax.optimization_barrier(v), default=lambda *v: v
    )


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalize(
    x: Array, scale: Array, bias: Array, center: Array, epsilon: float, axis_name: str | None
) -> tuple[Array, Array, Array]:
    """Batch-normalised x, and the batch's mean and (biased) variance.

    `center` [C] is a guess at the mean; the results do not depend on it but for rounding.
    """
    outputs, _ = _normalize_fwd(x, scale, bias, center, epsilon, axis_name)
    return outputs


def _normalize_fwd(
    x: Array, scale: Array, bias: Array, center: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], Any]:
    mean, var = lax.platform_dependent(
        x,
        center,
        cpu=partial(_statistics_in_two_passes, axis_name=axis_name),
        default=partial(_statistics_in_one_pass, axis_name=axis_name),
    )
    inverse_std = lax.rsqrt(var + epsilon)
    multiplier = inverse_std * scale
    multiplier, shift = _compute_first_on_cpu(multiplier, bias - mean * multiplier)
    out = (x * multiplier + shift).astype(x.dtype)
    return (out, mean, var), (x, scale, mean, inverse_std)


def _normalize_bwd(
    epsilon: float, axis_name: str | None, residuals: Any, cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    # No gradient flows through the batch's mean and variance as outputs: they only feed the
    # running averages.
    x, scale, mean, inverse_std = residuals
    dout, _, _ = cotangents
    dtype = _statistics_dtype(x)
    local_dbias = jnp.sum(dout, axis=(0, 1, 2), dtype=dtype)
    product = jnp.sum(dout.astype(dtype) * x, axis=(0, 1, 2))
    local_dscale = (product - mean * local_dbias) * inverse_std
    count = x.size // x.shape[-1]
    dbias, dscale = local_dbias, local_dscale
    if axis_name is not None:
        dbias, dscale = lax.pmean((dbias, dscale), axis_name)
    # (scale * inverse_std) * (dout - dbias / count - normalized * dscale / count), its terms
    # gathered by dout, x and 1.
    multiplier = scale * inverse_std
    slope = multiplier * inverse_std * dscale / count
    multiplier, slope, shift = _compute_first_on_cpu(
        multiplier, slope, mean * slope - multiplier * dbias / count
    )
    dx = (multiplier * dout - slope * x + shift).astype(x.dtype)
    dscale, dbias = local_dscale.astype(scale.dtype), local_dbias.astype(scale.dtype)
    return dx, dscale, dbias, jnp.zeros_like(mean)


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


FOLDED = "folded"  # collection of `folding.fold_batch_norm`


class BatchNorm(nn.Module):
    """Batch normalisation over batch, height and width; statistics are float32 at least.

    Variables have the names of `flax.linen.BatchNorm`: parameters `scale` and `bias`, running
    averages `batch_stats/mean` and `batch_stats/var` (biased variance). In inference they may be
    replaced by `folded/shift` and, unless the convolution before has taken it over,
    `folded/multiplier`.

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
        if self.use_running_average and self.has_variable(FOLDED, "shift"):
            scaled = x
            if self.has_variable(FOLDED, "multiplier"):
                scaled = x * self.get_variable(FOLDED, "multiplier")
            return (scaled + self.get_variable(FOLDED, "shift")).astype(x.dtype)
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        if self.use_running_average:
            multiplier = scale * lax.rsqrt(running_var.value + self.epsilon)
            return ((x - running_mean.value) * multiplier + bias).astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        center = running_mean.value
        out, mean, var = _normalize(x, scale, bias, center, self.epsilon, axis_name)
        if not self.is_initializing():
            old = self.momentum
            running_mean.value = old * running_mean.value + (1 - old) * lax.stop_gradient(mean)
            running_var.value = old * running_var.value + (1 - old) * lax.stop_gradient(var)
        return out
