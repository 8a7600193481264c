"""The smallest network with every kind of layer, and the smallest run."""

import dataclasses
import os
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rattn_jax.config.schema import AugmentationConfig, OptimizerConfig, RegularizationConfig
from rattn_jax.configs import default
from rattn_jax.data.batches import ResidentData, mean_image_normalization
from rattn_jax.models import create_model
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, make_mesh, replicate
from rattn_jax.training.optimizer import make_optimizer
from rattn_jax.training.state import create_train_state
from rattn_jax.training.steps import Preprocessing, UpdateRule, train_steps

KEYWORDS = {"widths": (8,), "modules_per_stage": (1,), "mask_poolings": (1,)}


def make_config(*, modules=1, **changes):
    """Six updates on digits, with an evaluation and a checkpoint after every second one.

    `modules=0` leaves the attention out, for tests of what goes on around a network: it has 2
    residual units instead of 8, and takes as much less to trace, compile and save.
    """
    config = default.get_config()
    config.dataset.name = "digits"
    config.model.name = "attention56_cifar"
    config.model.update(KEYWORDS | {"modules_per_stage": (modules,)})
    config.batch_size = 16
    config.num_train_steps = 6
    config.log_every_steps = 1
    config.eval_every_steps = 2
    config.checkpoint_every_steps = 2
    config.report = False  # its pictures take longer than the run
    config.compilation_cache_dir = os.environ["TINY_COMPILATION_CACHE"]  # of all such runs
    config.optimizer.learning_rate = 0.05
    config.optimizer.boundaries = (4,)
    for key, value in changes.items():
        config[key] = value
    return config


def get_config():
    """For `main.py --config=tests/tiny.py`."""
    return make_config()


def make_model(*, modules=1, **keywords):
    keywords = KEYWORDS | {"modules_per_stage": (modules,)} | keywords
    return create_model("attention56_cifar", 10, **keywords)


def make_state():
    """A train state before its first update."""
    optimizer = make_optimizer(OptimizerConfig(), optax.constant_schedule(0.1))
    return create_train_state(jax.random.key(1), make_model(), optimizer, (8, 8, 3))


def at_step(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def make_data(num_examples):
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (num_examples, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(num_examples, dtype=np.int32) % 10
    return ResidentData(images, labels, mean_image_normalization(images))


@cache
def _compiled(devices, modules, mode, learning_rate, sync, use_scan, label_smoothing, **changes):
    mesh = make_mesh(jax.devices()[:devices])
    model = make_model(modules=modules, norm_axis_name=DATA_AXIS if sync else None)
    config = OptimizerConfig(momentum=0.9, weight_decay=1e-4)
    optimizer = make_optimizer(config, optax.constant_schedule(learning_rate))
    plain = AugmentationConfig(crop_padding=0, flip=False)
    preprocessing = Preprocessing(plain, RegularizationConfig(), 10, label_smoothing)
    rule = UpdateRule(model, optimizer, preprocessing, **changes)
    function = partial(train_steps, rule=rule, axis_name=DATA_AXIS, use_scan=use_scan)
    step = data_parallel(function, mesh, mode, num_batches=1, donate_state=True)
    state = create_train_state(
        jax.random.key(0),
        model,
        optimizer,
        (8, 8, 3),
        with_averages=bool(changes.get("ema_decay")),
    )
    return step, jax.device_get(state), mesh


def compile_steps(
    *,
    devices=1,
    modules=1,
    mode="shard_map",
    learning_rate=0.05,
    sync=False,
    use_scan=False,
    label_smoothing=0.0,
    **changes,
):
    """The train step, compiled once for all tests that ask for the same, and a state before it."""
    step, state, mesh = _compiled(
        devices, modules, mode, learning_rate, sync, use_scan, label_smoothing, **changes
    )
    return step, replicate(state, mesh)


def run_steps(rows, data, *, devices=1, calls=1, **options):
    """State after `calls` calls with the same rows: indices [steps, batch], or batches."""
    step, state = compile_steps(devices=devices, **options)
    data = replicate(data, make_mesh(jax.devices()[:devices]))
    for _ in range(calls):
        state = step(state, data, rows)
    return state
