"""Data parallelism: a mesh of devices, and two ways to map a per-replica function over it.

    mesh = make_mesh(jax.devices())
    step = map_replicas(function, mesh, "shard_map", num_batches=1, donate_state=True)
    state = step(replicate(state, mesh), replicate(data, mesh), indices)

The function combines what it computes over the axis AXIS itself (`jax.lax.pmean`, ...).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rattn_jax.data.sampling import Share
from rattn_jax.errors import UsageError

AXIS = "replicas"
_SHARED = PartitionSpec(None, AXIS)  # of batches [steps, B, ...]


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """One-dimensional mesh over the devices; its axis is AXIS."""
    return Mesh(np.asarray(devices), (AXIS,))


def check_batch_size(batch_size: int, num_devices: int, accumulate_steps: int = 1) -> None:
    """Raises UsageError unless the batch can be split evenly over devices and parts."""
    unit = num_devices * accumulate_steps
    if batch_size % unit:
        parts = f" in {accumulate_steps} parts each" if accumulate_steps > 1 else ""
        raise UsageError(
            f"batch_size={batch_size} cannot be split over {num_devices} devices{parts}: "
            f"use a multiple of {unit}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays of the tree, whole on every device of the mesh; all processes have the same."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x)), tree
    )


def join_shares(rows: Any, mesh: Mesh) -> Any:
    """Global arrays [steps, B, ...] of what each process has of them, its `process_share`."""
    if jax.process_count() == 1:
        return rows
    sharding = NamedSharding(mesh, _SHARED)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def process_share() -> Share:
    """This process's part of each global batch: devices are in the order of their processes."""
    return Share(jax.process_index(), jax.process_count())


def is_main_process() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def add_up(count: int) -> int:
    """The sum of the processes' counts."""
    if jax.process_count() == 1:
        return count
    return int(np.sum(multihost_utils.process_allgather(np.array(count))))


def agree(values: Sequence[bool]) -> list[bool]:
    """The main process's values, in all processes."""
    if jax.process_count() == 1:
        return list(values)
    return multihost_utils.broadcast_one_to_all(np.array(values)).tolist()


def wait_on_cpu(tree: Any, mesh: Mesh) -> Any:
    """The arrays of the tree, computed if the devices are CPUs.

    To be asked before the next call of a mapped function. Calls that wait in line gain nothing on a
    CPU, and a signal to stop would have to wait for them: of updates that take 1.5 s each, longer
    than the 25 s of grace. Several devices share the threads that run calls: with more than one
    under way, and other work on the cores, calls were seen to wait for each other's all-reduces
    until XLA ended the process.
    """
    if mesh.devices.flat[0].platform == "cpu":
        jax.block_until_ready(tree)
    return tree


def map_replicas(
    function: Callable[..., Any],
    mesh: Mesh,
    mode: str,
    *,
    num_batches: int,
    donate_state: bool = False,
) -> Any:
    """Compiles `function(state, data, *batches)` of one replica for all devices of the mesh.

    Args:
        function: gets `state` and `data` whole and, of each array in `batches`, the replica's
            share [steps, B / replicas, ...]. Its result must be the same on all replicas.
        mesh: devices.
        mode: "shard_map" or "pmap"; the numbers are the same.
        num_batches: number of `batches`.
        donate_state: reuse the memory of `state` for the result.

    Returns:
        Function of (state, data, *batches) with trees of arrays [steps, B, ...] over the global
        batch; it can be lowered and compiled ahead of time, as those of `jax.jit`.

    Raises:
        UsageError: unknown mode.
    """
    donated = (0,) if donate_state else ()
    if mode == "shard_map":
        whole = PartitionSpec()
        mapped = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(whole, whole, *[_SHARED] * num_batches),
            out_specs=whole,
            # The function's own collectives make its result the same on all replicas.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)
    if mode == "pmap":
        mapped = jax.pmap(
            function,
            AXIS,
            in_axes=(None, None, *[1] * num_batches),
            out_axes=None,
            devices=list(mesh.devices),
            donate_argnums=donated,
        )
        return _SplitBatches(mapped, _splitter(mesh))
    raise UsageError(f"parallel={mode!r} is unknown: choose 'shard_map' or 'pmap'")


class _SplitBatches:
    """A function of (state, data, *batches) that gets batches as [steps, replicas, B, ...].

    With several processes all arrays are global, and `jax.pmap` takes them as they are: what it
    expects of one process alone, its devices' shares, it would only join to the same.
    """

    def __init__(self, function: Any, split: Callable[[Any], Any]) -> None:
        self._function, self._split = function, split

    def __call__(self, state: Any, data: Any, *batches: Any) -> Any:
        return self._function(state, data, *self._split(batches))

    def lower(self, state: Any, data: Any, *batches: Any) -> Any:
        lowered = self._function.lower(state, data, *self._split(batches))
        return _SplitBatches(lowered, self._split)

    def compile(self) -> Any:
        return _SplitBatches(self._function.compile(), self._split)


def _splitter(mesh: Mesh) -> Callable[[Any], Any]:
    """Function of a tree of batches [steps, B, ...] that gives [steps, replicas, B, ...]."""

    def split(batches: Any) -> Any:
        size = mesh.devices.size
        return jax.tree.map(lambda b: b.reshape(b.shape[0], size, -1, *b.shape[2:]), batches)

    if jax.process_count() == 1:
        return split
    return jax.jit(split, out_shardings=NamedSharding(mesh, _SHARED))  # each device keeps its own
