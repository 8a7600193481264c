"""States of the PyTorch port without PyTorch: all names and shapes, and values by rule."""

import numpy as np

# By the names of the port's classes: for CIFAR or not, modules in each stage, widths.
NETWORKS = {
    "ResidualAttentionModel_56": (False, (1, 1, 1), (256, 512, 1024)),
    "ResidualAttentionModel_92": (False, (1, 2, 3), (256, 512, 1024)),
    "ResidualAttentionModel_92_32input_update": (True, (1, 2, 3), (128, 256, 512)),
}

# Units of the masks of a stage, and their ends.
IMAGENET_MASKS = {
    1: "softmax1 skip1 softmax2 skip2 softmax3.0 softmax3.1 softmax4 softmax5 END6",
    2: "softmax1 skip1 softmax2.0 softmax2.1 softmax3 END4",
    3: "softmax1.0 softmax1.1 END2",
}
CIFAR_MASKS = {
    1: "down_residual_blocks1 skip1 middle_2r_blocks.0 middle_2r_blocks.1 up_residual_blocks1 END",
    2: "middle_2r_blocks.0 middle_2r_blocks.1 END",
    3: "middle_2r_blocks.0 middle_2r_blocks.1 END",
}


def norm(name, features):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (features,)
    yield f"{name}.num_batches_tracked", ()


def unit(name, features_in, features):
    width = features // 4
    for i, size in enumerate((features_in, width, width), start=1):
        yield from norm(f"{name}.bn{i}", size)
    yield f"{name}.conv1.weight", (width, features_in, 1, 1)
    yield f"{name}.conv2.weight", (width, width, 3, 3)
    yield f"{name}.conv3.weight", (features, width, 1, 1)
    yield f"{name}.conv4.weight", (features, features_in, 1, 1)


def module(name, features, mask, end):
    for part in ("first_residual_blocks", "trunk_branches.0", "trunk_branches.1", "last_blocks"):
        yield from unit(f"{name}.{part}", features, features)
    for part in mask:
        yield from unit(f"{name}.{part}", features, features)
    for i in (0, 3):
        yield from norm(f"{name}.{end}.{i}", features)
        yield f"{name}.{end}.{i + 2}.weight", (features, features, 1, 1)


def shapes(network, widths=None, num_classes=10):
    """Shapes by name."""
    cifar, modules_per_stage, own_widths = NETWORKS[network]
    return dict(_shapes(cifar, modules_per_stage, widths or own_widths, num_classes))


def _shapes(cifar, modules_per_stage, widths, num_classes):
    features = 32 if cifar else 64
    kernel_size = 3 if cifar else 7
    yield "conv1.0.weight", (features, 3, kernel_size, kernel_size)
    yield from norm("conv1.1", features)
    for stage, (width, count) in enumerate(zip(widths, modules_per_stage, strict=True), start=1):
        yield from unit(f"residual_block{stage}", features, width)
        *mask, end = (CIFAR_MASKS if cifar else IMAGENET_MASKS)[stage].split()
        mask = [part.replace("skip1", "skip1_connection_residual_block") for part in mask]
        mask = [part.replace("skip2", "skip2_connection_residual_block") for part in mask]
        mask = [f"{part[:8]}_blocks{part[8:]}" if "softmax" in part else part for part in mask]
        end = "conv1_1_blocks" if cifar else f"softmax{end[3:]}_blocks"
        for i in range(1, count + 1):
            suffix = "" if i == 1 else f"_{i}"
            yield from module(f"attention_module{stage}{suffix}", width, mask, end)
        features = width
    for i, size in ((4, features), (5, 2 * features), (6, 2 * features)):
        yield from unit(f"residual_block{i}", size, 2 * features)
    yield from norm("mpool2.0", 2 * features)
    yield "fc.weight", (num_classes, 2 * features)
    yield "fc.bias", (num_classes,)


def empty_state(network, **keywords):
    """Arrays of zeros that take no memory."""
    return {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in shapes(network, **keywords).items()
    }


def random_state(network, **keywords):
    """Values, float64, the same ones everywhere.

    They leave no mask saturated and no inner channels of a unit all negative, at widths of 16 and
    more: each array matters. With larger kernels masks are 0 or 1, whatever comes before.
    """
    generator = np.random.RandomState(0)

    def values(name, shape):
        if name.endswith("num_batches_tracked"):
            return np.asarray(7)
        if len(shape) > 1:
            return generator.normal(size=shape) / np.sqrt(3 * np.prod(shape[1:]))
        if name.endswith("running_mean"):
            return generator.normal(size=shape) * 0.3
        return generator.uniform(0.5, 1.5, shape)

    return {
        name: values(name, shape) for name, shape in sorted(shapes(network, **keywords).items())
    }
