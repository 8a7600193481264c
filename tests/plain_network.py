"""The attention networks once more, from the specification and in the plainest JAX.

Functions of (parameters, statistics) by name: no module classes, no matrix products for
convolutions, no shared code with the package. Statistics of None are those of the batch.
"""

import jax
import jax.numpy as jnp
import numpy as np


def conv(x, kernel, stride=1):
    padding = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def norm(x, params, stats):
    if stats is None:
        stats = {"mean": x.mean(axis=(0, 1, 2)), "var": x.var(axis=(0, 1, 2))}
    x = (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5)
    return x * params["scale"] + params["bias"]


def relu(x):
    return jnp.maximum(x, 0)


def norm_relu(x, params, stats):
    return relu(norm(x, params, stats))


def part(stats, name):
    return None if stats is None else stats[name]


def max_pool(x):
    """3x3, stride 2, ceil mode, by hand."""
    x = np.asarray(x)
    height, width = (-(-(n - 3) // 2) + 1 for n in x.shape[1:3])
    rows = [
        [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2)) for j in range(width)]
        for i in range(height)
    ]
    return jnp.asarray(np.stack([np.stack(row, axis=1) for row in rows], axis=1))


def interpolate(x, size):
    """Bilinear, aligned corners, position by position."""
    x = np.asarray(x)

    def along(x, axis, n_out):
        n_in = x.shape[axis]
        slices = []
        for i in range(n_out):
            position = i * (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
            low = min(int(position), n_in - 1)
            high = min(low + 1, n_in - 1)
            weight = position - low
            slices.append((1 - weight) * x.take(low, axis) + weight * x.take(high, axis))
        return np.stack(slices, axis)

    return jnp.asarray(along(along(x, 1, size[0]), 2, size[1]), x.dtype)


def unit(x, params, stats, stride=1):
    if (
        "projection_norm" in params
        or params["norm3"]["scale"].size == params["conv3"]["kernel"].shape[3]
    ):
        return resnext_unit(x, params, stats, stride)
    a = norm_relu(x, params["norm1"], part(stats, "norm1"))
    h = conv(a, params["conv1"]["kernel"])
    h = norm_relu(h, params["norm2"], part(stats, "norm2"))
    h = conv(h, params["conv2"]["kernel"], stride)
    h = norm_relu(h, params["norm3"], part(stats, "norm3"))
    h = conv(h, params["conv3"]["kernel"])
    if "projection" in params:
        x = conv(a, params["projection"]["kernel"], stride)
    return x + h


def resnext_unit(x, params, stats, stride):
    h = conv(x, params["conv1"]["kernel"])
    h = norm_relu(h, params["norm1"], part(stats, "norm1"))
    h = conv(h, params["conv2"]["kernel"], stride)
    h = norm_relu(h, params["norm2"], part(stats, "norm2"))
    h = norm(conv(h, params["conv3"]["kernel"]), params["norm3"], part(stats, "norm3"))
    if "projection" in params:
        x = conv(x, params["projection"]["kernel"], stride)
        x = norm(x, params["projection_norm"], part(stats, "projection_norm"))
    return relu(x + h)


def units(x, params, stats, prefix):
    i = 1
    while f"{prefix}{i}" in params:
        x = unit(x, params[f"{prefix}{i}"], part(stats, f"{prefix}{i}"))
        i += 1
    return x


def mask(x, params, stats, poolings):
    encoded = [x]
    for level in range(1, poolings + 1):
        encoded.append(units(max_pool(encoded[-1]), params, stats, f"encoder{level}_unit"))
    h = units(encoded[-1], params, stats, f"decoder{poolings}_unit")
    for level in range(poolings - 1, 0, -1):
        h = interpolate(h, encoded[level].shape[1:3])
        h = h + units(encoded[level], params, stats, f"skip{level}_unit")
        h = units(h, params, stats, f"decoder{level}_unit")
    h = interpolate(h, x.shape[1:3])
    if "norm1" in params:
        h = norm_relu(h, params["norm1"], part(stats, "norm1"))
    h = conv(h, params["linear1"]["kernel"])
    h = norm_relu(h, params["norm2"], part(stats, "norm2"))
    h = conv(h, params["linear2"]["kernel"])
    return 1 / (1 + jnp.exp(-h))


def module(x, params, stats, poolings):
    x = units(x, params, stats, "pre_unit")
    trunk = units(x, params, stats, "trunk_unit")
    fused = (1 + mask(x, params["mask"], part(stats, "mask"), poolings)) * trunk
    return units(fused, params, stats, "post_unit")


def network(params, stats, images, mask_poolings):
    if "stem_norm" in params:
        x = conv(images, params["stem"]["kernel"], stride=2)
        x = max_pool(norm_relu(x, params["stem_norm"], part(stats, "stem_norm")))
    else:
        x = conv(images, params["stem"]["kernel"])
    for s, poolings in enumerate(mask_poolings, start=1):
        stage, stage_stats = params[f"stage{s}"], part(stats, f"stage{s}")
        x = unit(x, stage["entry"], part(stage_stats, "entry"), stride=1 if s == 1 else 2)
        i = 1
        while f"module{i}" in stage:
            x = module(x, stage[f"module{i}"], part(stage_stats, f"module{i}"), poolings)
            i += 1
        x = units(x, stage, stage_stats, "exit")
    if (last := f"stage{len(mask_poolings) + 1}") in params:
        x = unit(x, params[last]["entry"], part(part(stats, last), "entry"), stride=2)
        x = units(x, params[last], part(stats, last), "exit")
    if "norm" in params:
        x = norm_relu(x, params["norm"], part(stats, "norm"))
    return x.mean(axis=(1, 2)) @ params["classifier"]["kernel"] + params["classifier"]["bias"]
