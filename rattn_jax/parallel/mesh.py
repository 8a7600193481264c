"""The mesh of devices, global arrays, and communication between processes.

mesh = make_mesh(find_devices())
state, data = replicate((state, data), mesh)
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rattn_jax.errors import UsageError

DATA_AXIS = "data"
SHARED = PartitionSpec(None, DATA_AXIS)  # of batches [steps, B, ...]


@dataclasses.dataclass(frozen=True)
class ProcessShard:
    """Shard `index` of `count` equal, contiguous shards of each global batch."""

    index: int
    count: int

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The shard of `rows` [steps, B]."""
        size = rows.shape[1] // self.count
        return rows[:, self.index * size : (self.index + 1) * size]


WHOLE = ProcessShard(0, 1)


def find_devices() -> Sequence[jax.Device]:
    """All devices of the job.

    Raises:
        UsageError: there are none of the kind that JAX_PLATFORMS asks for.
    """
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError: of "cuda" without CUDA
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()) or "not installed"
        raise UsageError(
            f"JAX finds no device for JAX_PLATFORMS={wanted!r} ({reason:.200}): install JAX for it "
            "(pip install 'jax[cuda12]' or 'jax[tpu]'), or unset JAX_PLATFORMS"
        ) from error


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """One-dimensional mesh over the devices; its axis is DATA_AXIS."""
    return Mesh(np.asarray(devices), (DATA_AXIS,))


def check_batch_size(batch_size: int, num_devices: int, accumulate_steps: int = 1) -> None:
    """Raises UsageError unless the batch can be split evenly over devices and microbatches."""
    unit = num_devices * accumulate_steps
    if batch_size % unit:
        parts = f" in {accumulate_steps} parts each" if accumulate_steps > 1 else ""
        raise UsageError(
            f"batch_size={batch_size} cannot be split over {num_devices} devices{parts}: "
            f"use a multiple of {unit}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicates arrays on every device of the mesh; all processes must pass the same."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x)), tree
    )


def to_global_arrays(rows: Any, mesh: Mesh) -> Any:
    """Joins the shards of all processes to global arrays [steps, B, ...]."""
    if jax.process_count() == 1:
        return rows
    sharding = NamedSharding(mesh, SHARED)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def process_shard() -> ProcessShard:
    """This process's shard of each global batch; devices are ordered by process."""
    return ProcessShard(jax.process_index(), jax.process_count())


def is_main_process() -> bool:
    """Whether this is the main process, which writes the files."""
    return jax.process_index() == 0


def sum_over_processes(counts: Sequence[int]) -> list[int]:
    """Sums counts over all processes, which all have as many."""
    if jax.process_count() == 1 or not counts:
        return list(counts)
    return np.sum(multihost_utils.process_allgather(np.array(counts)), axis=0).tolist()


def broadcast_from_main(values: Sequence[int]) -> list[int]:
    """Returns the values of the main process in all processes."""
    if jax.process_count() == 1:
        return list(values)
    return multihost_utils.broadcast_one_to_all(np.array(values)).tolist()


def is_same_everywhere(value: int) -> bool:
    """Whether all processes have this number, of 32 bits."""
    if jax.process_count() == 1:
        return True
    values = multihost_utils.process_allgather(np.array(value, np.uint32))
    return bool(np.all(values == values.flat[0]))


def is_on_cpu(mesh: Mesh) -> bool:
    """Whether the devices are CPUs."""
    return mesh.devices.flat[0].platform == "cpu"


def wait_on_cpu(tree: Any, mesh: Mesh) -> Any:
    """Waits for the arrays if the devices are CPUs; call it before the next mapped function.

    Queued calls gain nothing on a CPU, and a preemption signal would have to wait for them: with
    updates of 1.5 s, longer than the 25 s of grace. Several CPU devices share one thread pool: with
    several calls in flight on busy cores, all-reduces were seen to wait for each other until XLA
    aborted the process.
    """
    if is_on_cpu(mesh):
        jax.block_until_ready(tree)
    return tree
