"""Operations of a run and the speed of this machine, for a plan without compiling a network.

multiply_adds(config)           # of the network, for one image
measure_speed()                 # multiply-adds a second in training

Both are rough estimates: the true time may be half or double.
"""

import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import build_spec
from rattn_jax.data.open_loader import image_sizes
from rattn_jax.models import create_model
from rattn_jax.models.layers import BatchNorm, Conv
from rattn_jax.models.summary import layers, standard_input
from rattn_jax.models.units import PreactivationUnit

# Of the networks in the tables, for an image of their standard size (`rattn describe`). Tracing one
# would take up to 5 seconds.
MULTIPLY_ADDS = {
    "attention56_cifar": 122_825_216,
    "attention92_cifar": 211_913_216,
    "attention128_cifar": 301_001_216,
    "attention164_cifar": 390_089_216,
    "attention236_cifar": 568_265_216,
    "attention452_cifar": 984_386_048,
    "resnet164_cifar": 247_646_720,
    "resnet1001_cifar": 1_490_995_712,
    "wrn16_8_cifar": 1_548_145_664,
    "wrn28_10_cifar": 5_243_328_768,
    "attention56": 6_270_836_736,
    "attention92": 10_533_789_696,
    "attentionnext56": 6_419_106_816,
    "attentioninception56": 6_319_033_920,
    "resnet152": 11_513_626_624,
    "resnet200": 15_007_481_856,
    "resnext101": 7_969_996_800,
    "inception_resnet_v1": 6_206_361_696,
    "inception_resnet_v2": 13_155_794_016,
}
# Keywords that change no convolution, and `widths`, which scales all of them alike.
_SAME_COST = frozenset(
    {"attention_residual", "mask_activation", "dtype", "remat", "scan_modules", "widths"}
)

_FORWARD_AND_BACKWARD = 3  # the gradients take about twice the forward pass
# The measured unit is that of stage 3 on CIFAR. On two CPU cores it reached 72 billion
# multiply-adds a second, with and without huge pages, and a train step of Attention-56 54 to 62.
_BATCH_SIZE, _SIZE, _FEATURES = 64, 8, 256
_CALLS = 3


def multiply_adds(config: RunConfig) -> float:
    """Multiply-adds of a run's network for one training image.

    They are proportional to the area of the images and the square of the widths; for other changes
    the network is traced.
    """
    spec, model = build_spec(config), config.model
    size = image_sizes(config.dataset, spec).train
    keywords = model.keywords()
    if model.name not in MULTIPLY_ADDS or keywords.keys() - _SAME_COST:
        network = create_model(model.name, spec.num_classes, **keywords)
        return sum(layer.multiply_adds for layer in layers(network, size))
    standard, num_classes = standard_input(model.name)
    wider = 1.0
    if model.widths:
        network = create_model(model.name, num_classes)
        wider = sum(model.widths) / sum(network.widths)
    return MULTIPLY_ADDS[model.name] * (size / standard) ** 2 * wider**2


def step_seconds(config: RunConfig, speed: float) -> float:
    """Seconds of an update at a speed in multiply-adds a second."""
    return _FORWARD_AND_BACKWARD * multiply_adds(config) * config.batch_size / speed


def measure_speed() -> float:
    """Measures multiply-adds a second of one residual unit in training, on all devices."""
    norm = partial(BatchNorm, use_running_average=False)
    unit = PreactivationUnit(_FEATURES, Conv, norm)
    images = jnp.ones((_BATCH_SIZE, _SIZE, _SIZE, _FEATURES))
    variables = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda: unit.init(jax.random.key(0), images)),
    )

    @jax.jit
    def gradient(variables: Mapping[str, Any]) -> Any:
        def loss(params: Any) -> Any:
            inputs = {**variables, "params": params}
            outputs, _ = unit.apply(inputs, images, mutable=["batch_stats"])
            return jnp.sum(outputs**2)

        return jax.grad(loss)(variables["params"])

    jax.block_until_ready(gradient(variables))
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(gradient(variables))
        seconds.append(time.perf_counter() - start)
    counted = unit.multiply_adds(_FEATURES, _FEATURES // 4) * _SIZE**2 * _BATCH_SIZE
    per_device = _FORWARD_AND_BACKWARD * counted / statistics.median(seconds)
    return float(np.float64(per_device) * jax.device_count())
