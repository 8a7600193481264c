"""The package's networks and idiomatic Flax: compiled ahead of time, their input on the device.

Training is `rattn_jax.training.steps.train_steps`, with crops and flips of uint8 images that live
on the device, with optimizer and metrics. Imports nothing that reads datasets.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.task import FLAX, FOLDED, INFERENCE, Ready, Run, Task
from experiments.flax_twin import FlaxTwin
from rattn_jax.config.schema import AugmentationConfig, OptimizerConfig, RegularizationConfig
from rattn_jax.data.batches import Normalization, ResidentData
from rattn_jax.models import create_model, init_variables
from rattn_jax.models.folding import fold_batch_norm
from rattn_jax.models.summary import describe
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, make_mesh, replicate
from rattn_jax.training.compilation import compile_for, release_memory
from rattn_jax.training.optimizer import make_optimizer, make_schedule
from rattn_jax.training.state import create_train_state
from rattn_jax.training.steps import Preprocessing, UpdateRule, train_steps

_MATRIX_SIZES = {"cpu": 2048}
_LARGE_MATRIX_SIZE = 8192  # keeps an accelerator busy


def prepare(name: str, task: Task) -> tuple[Run, Ready]:
    """Builds the network of the contender `name` and the function that runs the task."""
    keywords = {} if task.dtype == "float32" else {"dtype": task.dtype}
    ours: Any = create_model(task.network, task.num_classes, **keywords)
    # The variables of both networks have the same names: only one needs to be initialised.
    model = FlaxTwin(task.num_classes, ours.modules_per_stage[0]) if name == FLAX else ours
    if task.workload == INFERENCE:
        run, compiled, seconds = _inference(model, ours, task, name == FOLDED)
    else:
        run, compiled, seconds = _train(model, ours, task)
    plan = compiled.memory_analysis()
    planned = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
    operations = task.operations_per_multiply_add * describe(task.network).multiply_adds
    release_memory()  # the plan took 85 MB, which are not the contender's
    return run, Ready(
        jax.default_backend(),
        jax.devices()[0].device_kind,
        seconds,
        planned - plan.alias_size_in_bytes,
        operations * task.batch_size * task.steps_per_call,
    )


def _train(model: Any, ours: Any, task: Task) -> tuple[Run, Any, float]:
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    optimizer = make_optimizer(config, make_schedule(config, num_train_steps=1))
    preprocessing = Preprocessing(
        AugmentationConfig(crop_padding=4, flip=True), RegularizationConfig(), task.num_classes
    )
    function = partial(
        train_steps,
        use_scan=jax.default_backend() != "cpu",
        rule=UpdateRule(model, optimizer, preprocessing),
        axis_name=DATA_AXIS,
    )
    mesh = make_mesh(jax.devices()[:1])
    mapped = data_parallel(function, mesh, "shard_map", num_batches=1, donate_state=True)
    generator = np.random.RandomState(0)
    shape = (task.image_size, task.image_size, 3)
    images = generator.randint(0, 256, (10 * task.batch_size, *shape)).astype(np.uint8)
    labels = generator.randint(0, task.num_classes, len(images)).astype(np.int32)
    mean = np.asarray(np.mean(images, axis=0, dtype=np.float64), np.float32)
    normalization = Normalization(mean, np.ones((), np.float32))
    rows = generator.randint(0, len(images), (task.steps_per_call, task.batch_size))
    state = create_train_state(jax.random.key(0), ours, optimizer, shape)
    state, data, rows = replicate(
        (state, ResidentData(images, labels, normalization), rows.astype(np.int32)), mesh
    )

    step, seconds = compile_for(mapped, state, data, rows)

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = step(state, data, rows)
        jax.block_until_ready(state)

    return run, step, sum(seconds)


def _inference(model: Any, ours: Any, task: Task, folded: bool) -> tuple[Run, Any, float]:
    shape = (task.batch_size, task.image_size, task.image_size, 3)
    images = jnp.asarray(np.random.RandomState(0).normal(size=shape), jnp.float32)
    variables = init_variables(ours, jax.random.key(0), shape[1:])
    if folded:
        variables = jax.device_put(fold_batch_norm(ours, variables, shape[1:]))

    function = jax.jit(partial(model.apply, train=False))
    forward, seconds = compile_for(function, variables, images)

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(forward(variables, images))

    return run, forward, sum(seconds)


def prepare_matrix_product(dtype: str) -> tuple[Run, Ready]:
    """The product of two square matrices in the dtype: what the machine can do."""
    platform = jax.default_backend()
    size = _MATRIX_SIZES.get(platform, _LARGE_MATRIX_SIZE)
    matrix = jnp.asarray(np.random.RandomState(0).normal(size=(size, size)), dtype)
    product = jax.jit(jnp.dot)

    def run(count: int) -> None:
        for _ in range(count):
            result = product(matrix, matrix)
        jax.block_until_ready(result)

    device = jax.devices()[0].device_kind
    return run, Ready(platform, device, floating_point_operations=2.0 * size**3)
