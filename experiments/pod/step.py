"""The train step of a config for abstract devices, from shapes alone.

step = PlannedStep(config, devices)
step.lower()                               # as the training loop lowers it

Nothing is read or initialized: the sizes of datasets are those of `dataset_spec`.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import (
    FIXED_NORMALIZATIONS,
    Batch,
    Data,
    Normalization,
    ResidentData,
    StreamedData,
)
from rattn_jax.data.catalog import build_spec
from rattn_jax.data.open_loader import fits_device, image_sizes
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import DATA_AXIS, check_batch_size, make_mesh
from rattn_jax.training.step_functions import build_steps


class PlannedStep:
    """One update of a run, and the shapes of its arguments.

    Attributes:
        function: the step, before compilation.
        state, data, rows: its abstract arguments, with their shardings.
        resident: whether every device holds the data.
        evaluated_bytes: data of the evaluated splits, which every device holds as well.

    Args:
        config: the run's config.
        devices: devices to compile for.

    Raises:
        UsageError: the config cannot be used.
    """

    def __init__(self, config: RunConfig, devices: Sequence[jax.Device]) -> None:
        check_batch_size(config.batch_size, len(devices), config.accumulate_steps)
        if config.parallel != "shard_map":
            raise UsageError(
                f"config.parallel={config.parallel!r} cannot be compiled ahead of time: "
                "use 'shard_map', whose numbers are the same"
            )
        mesh, spec = make_mesh(devices), build_spec(config)
        sizes = image_sizes(config.dataset, spec)
        self.resident = fits_device(config, sizes, spec)
        # A single update; the costs of a loop would count its body once.
        steps = build_steps(config, spec, mesh, use_scan=False)
        self.function: Any = steps.train_function
        size = sizes.train
        whole = NamedSharding(mesh, PartitionSpec())
        share = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
        num_train = spec.num_train - config.validation_examples
        self.state = _with(whole, jax.eval_shape(steps.arrange, steps.abstract_state()))
        self.data = _with(whole, _data(config, size, num_train if self.resident else None))
        self.rows = _with(share, _rows(config.batch_size, size, self.resident))
        self.evaluated_bytes = 0
        if self.resident:
            counts = filter(None, (spec.num_test, config.validation_examples))
            self.evaluated_bytes = sum(num_bytes(_data(config, sizes.eval, n)) for n in counts)

    def lower(self) -> Any:
        """Lowers the step for the devices."""
        return self.function.lower(self.state, self.data, self.rows)

    def median_seconds(self, compiled: Any, most_calls: int, most_seconds: float) -> float:
        """Median time of the compiled step on arrays of zeros.

        Args:
            compiled: from `lower`, for devices that are there.
            most_calls: number of calls that are timed.
            most_seconds: time after which no other call begins.
        """

        def zeros(leaf: Any) -> Any:
            return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)

        state, data, rows = jax.tree.map(zeros, (self.state, self.data, self.rows))
        state = jax.block_until_ready(compiled(state, data, rows))
        seconds: list[float] = []
        while len(seconds) < most_calls and sum(seconds) < most_seconds:
            start = time.perf_counter()
            state = jax.block_until_ready(compiled(state, data, rows))
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


def num_bytes(tree: Any) -> int:
    """Bytes of the arrays in a tree, without padding."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _with(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _data(config: RunConfig, size: int, num_examples: int | None) -> Data:
    """A resident split of `num_examples`, or a streamed one if it is None."""
    if config.normalization == "mean_image":
        mean: Any = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
        scale: Any = jax.ShapeDtypeStruct((), jnp.float32)
        normalization = Normalization(mean, scale)
    else:
        normalization = FIXED_NORMALIZATIONS[config.normalization]()
    if num_examples is None:
        return StreamedData(normalization)
    images, labels = _examples(num_examples, size=size)
    return ResidentData(images, labels, normalization)


def _examples(*shape: int, size: int) -> Any:
    return (
        jax.ShapeDtypeStruct((*shape, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct(shape, jnp.int32),
    )


def _rows(batch_size: int, size: int, resident: bool) -> Any:
    if resident:
        return jax.ShapeDtypeStruct((1, batch_size), jnp.int32)
    return Batch(*_examples(1, batch_size, size=size))
