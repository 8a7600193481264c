"""Compares logits, an update and running averages of an accelerator with those of a CPU.

Errors are relative: the norm of the difference over the norm of the CPU's values, both over all
values of the group. The CPU computes in float32. The update is that of SGD with Nesterov
momentum from the initial parameters, without augmentation.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.accelerator.record import Record
from rattn_jax.config.schema import AugmentationConfig, OptimizerConfig, RegularizationConfig
from rattn_jax.data.batches import Normalization, ResidentData
from rattn_jax.models import create_model
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, make_mesh, replicate
from rattn_jax.training.optimizer import make_optimizer, make_schedule
from rattn_jax.training.state import TrainState, create_train_state
from rattn_jax.training.steps import Preprocessing, UpdateRule, train_steps


class Case(NamedTuple):
    """A network, and the size and number of the images on which it is checked."""

    network: str
    image_size: int
    num_classes: int
    batch_size: int


CASES = (
    Case("attention56_cifar", 32, 10, 64),
    Case("attention92_cifar", 32, 10, 64),
    Case("attention56", 224, 1000, 8),
)
TINY_CASES = (Case("attention56_cifar", 32, 10, 16),)

# Largest relative errors: (logits, update, running averages).
_LIMITS = {
    "highest": (1e-4, 2e-2, 1e-4),
    "default": (2e-2, None, 2e-2),
    "bfloat16": (6e-2, None, 2e-2),  # 8 bits, through 56 layers; 0.038 on a CPU
}
_REPEATS = 5
_MEAN, _STD = 128.0, 64.0  # of the images


class Values(NamedTuple):
    """Logits [B, num_classes] of the initial network, and changes of the state by an update."""

    logits: Any
    update: Any
    running_averages: Any


def check(record: Record, cases: tuple[Case, ...] = CASES) -> bool:
    """Compares the default device with a CPU; returns whether all is compared and within limits."""
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    record.add(device=device.device_kind, platform=device.platform, jax=jax.__version__)
    is_right = True
    for case in cases:
        if record.seconds_left() < 0:
            record.add(left_out=case.network, reason="no time is left")
            continue
        inputs = _inputs(case)
        expected, _ = _compute(case, inputs, cpu, "float32", "highest")
        for name, dtype, precision in (
            ("highest", "float32", "highest"),
            ("default", "float32", None),
            ("bfloat16", "bfloat16", None),
        ):
            values, seconds = _compute(case, inputs, device, dtype, precision)
            errors = [_relative_error(a, b) for a, b in zip(values, expected, strict=True)]
            limits = _LIMITS[name]
            within = [e <= limit for e, limit in zip(errors, limits, strict=True) if limit]
            is_right &= all(within)
            record.add(
                network=case.network,
                computation=name,
                **dict(zip(Values._fields, errors, strict=True)),
                limits=limits,
                passed=all(within),
                compile_and_run_seconds=round(seconds, 1),
            )
    if record.seconds_left() < 0:
        record.add(left_out="repeated updates", reason="no time is left")
        return False
    return is_right & _check_repeatability(record, cases[0], device)


def _check_repeatability(record: Record, case: Case, device: jax.Device) -> bool:
    """Repeats an update from one state, and compares `pmap` with `shard_map`."""
    inputs = _inputs(case)
    results: dict[str, list[Any]] = {}
    for name, parallel, options in (
        ("shard_map", "shard_map", {}),
        ("pmap", "pmap", None),
        ("deterministic", "shard_map", {"xla_gpu_deterministic_ops": True}),
    ):
        if name == "deterministic" and device.platform != "gpu":
            continue
        step, arguments = _step(case, inputs, device, "float32", parallel)
        lowered = step.lower(*arguments)
        compiled = lowered.compile(compiler_options=options) if options else lowered.compile()
        results[name] = [jax.device_get(compiled(*arguments).params) for _ in range(_REPEATS)]
        equal = all(_are_equal(results[name][0], other) for other in results[name][1:])
        record.add(repeated=name, times=_REPEATS, equal_bit_for_bit=equal)
    error = _relative_error(results["pmap"][0], results["shard_map"][0])
    record.add(pmap_beside_shard_map=error, passed=error < 1e-5)
    return error < 1e-5


def _inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 and labels int32 of a batch."""
    generator = np.random.RandomState(0)
    shape = (case.batch_size, case.image_size, case.image_size, 3)
    coarse = generator.randint(0, 256, (case.batch_size, 4, 4, 3))
    smooth = np.repeat(np.repeat(coarse, shape[1] // 4, axis=1), shape[2] // 4, axis=2)
    images = np.clip(smooth + generator.randint(-20, 21, shape), 0, 255).astype(np.uint8)
    return images, generator.randint(0, case.num_classes, case.batch_size).astype(np.int32)


def _compute(
    case: Case, inputs: Any, device: jax.Device, dtype: str, precision: str | None
) -> tuple[Values, float]:
    """Computes the values, on the host as float64, and the seconds that they took."""
    start = time.perf_counter()
    with jax.default_device(device), jax.default_matmul_precision(precision):
        step, (state, data, rows) = _step(case, inputs, device, dtype, "shard_map")
        model = _model(case, dtype)
        images = (jnp.asarray(inputs[0], jnp.float32) - _MEAN) / _STD
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        apply: Any = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
        logits, _ = apply(variables, images)
        updated = step(state, data, rows)
    change = jax.tree.map(
        lambda new, old: np.asarray(new, np.float64) - np.asarray(old, np.float64),
        jax.device_get(updated.params),
        jax.device_get(state.params),
    )
    values = Values(jax.device_get(logits), change, jax.device_get(updated.batch_stats))
    return values, time.perf_counter() - start


def _model(case: Case, dtype: str) -> Any:
    keywords = {} if dtype == "float32" else {"dtype": dtype}
    return create_model(case.network, case.num_classes, **keywords)


def _step(
    case: Case, inputs: Any, device: jax.Device, dtype: str, parallel: str
) -> tuple[Any, tuple[TrainState, ResidentData, Any]]:
    """A function for one update, and its arguments, which it does not donate."""
    model = _model(case, dtype)
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    optimizer = make_optimizer(config, make_schedule(config, num_train_steps=1))
    rule = UpdateRule(
        model,
        optimizer,
        Preprocessing(AugmentationConfig(), RegularizationConfig(), case.num_classes),
    )
    mesh: Mesh = make_mesh([device])
    function = partial(
        train_steps, rule=rule, axis_name=DATA_AXIS, use_scan=device.platform != "cpu"
    )
    step = data_parallel(function, mesh, parallel, num_batches=1)
    shape = (case.image_size, case.image_size, 3)
    # The same initial parameters everywhere: normal numbers differ in the last bit.
    with jax.default_device(jax.devices("cpu")[0]):
        state = create_train_state(jax.random.key(0), model, optimizer, shape)
    rows = np.arange(case.batch_size, dtype=np.int32)[None]
    images, labels = inputs
    data = ResidentData(images, labels, _normalization(shape))
    return step, replicate((jax.device_get(state), data, rows), mesh)


def _normalization(shape: tuple[int, ...]) -> Normalization:
    """That of the images: (image - _MEAN) / _STD."""
    return Normalization(np.full(shape, _MEAN, np.float32), np.full((), 1 / _STD, np.float32))


def _relative_error(value: Any, expected: Any) -> float:
    """Norm of the difference over the norm of the expected values; infinite for NaN."""
    a, b = (
        np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])
        for tree in (value, expected)
    )
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    return error if np.isfinite(error) else float("inf")


def _are_equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
