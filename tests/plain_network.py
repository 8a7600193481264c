"""The CIFAR attention network once more, from the specification and in the plainest JAX.

Functions of (parameters, running averages) by name, in inference mode: no module classes, no
matrix products for convolutions, no shared code with the package.
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
    )


def norm_relu(x, params, stats):
    x = (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5)
    return jnp.maximum(x * params["scale"] + params["bias"], 0)


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

    return jnp.asarray(along(along(x, 1, size[0]), 2, size[1]), jnp.float32)


def unit(x, params, stats, stride=1):
    a = norm_relu(x, params["norm1"], stats["norm1"])
    h = conv(a, params["conv1"]["kernel"])
    h = conv(norm_relu(h, params["norm2"], stats["norm2"]), params["conv2"]["kernel"], stride)
    h = conv(norm_relu(h, params["norm3"], stats["norm3"]), params["conv3"]["kernel"])
    if "projection" in params:
        x = conv(a, params["projection"]["kernel"], stride)
    return x + h


def units(x, params, stats, prefix):
    i = 1
    while f"{prefix}{i}" in params:
        x = unit(x, params[f"{prefix}{i}"], stats[f"{prefix}{i}"])
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
    for i in ("1", "2"):
        h = norm_relu(h, params["norm" + i], stats["norm" + i])
        h = conv(h, params["linear" + i]["kernel"])
    return 1 / (1 + jnp.exp(-h))


def module(x, params, stats, poolings):
    x = units(x, params, stats, "pre_unit")
    trunk = units(x, params, stats, "trunk_unit")
    fused = (1 + mask(x, params["mask"], stats["mask"], poolings)) * trunk
    return units(fused, params, stats, "post_unit")


def network(variables, images, mask_poolings):
    params, stats = variables["params"], variables["batch_stats"]
    x = conv(images, params["stem"]["kernel"])
    for s, poolings in enumerate(mask_poolings, start=1):
        stage, stage_stats = params[f"stage{s}"], stats[f"stage{s}"]
        x = unit(x, stage["entry"], stage_stats["entry"], stride=1 if s == 1 else 2)
        i = 1
        while f"module{i}" in stage:
            x = module(x, stage[f"module{i}"], stage_stats[f"module{i}"], poolings)
            i += 1
        x = unit(x, stage["exit1"], stage_stats["exit1"])
    x = norm_relu(x, params["norm"], stats["norm"]).mean(axis=(1, 2))
    return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]
