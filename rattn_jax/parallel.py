"""Data parallelism: a mesh of devices, and two ways to map a per-replica function over it.

    mesh = make_mesh(jax.devices())
    step = map_replicas(function, mesh, "shard_map", donate_state=True)
    state = step(replicate(state, mesh), replicate(data, mesh), indices)

The function combines what it computes over the axis AXIS itself (`jax.lax.pmean`, ...).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rattn_jax.errors import UsageError

AXIS = "replicas"


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
    """The arrays of the tree, whole on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def map_replicas(
    function: Callable[..., Any], mesh: Mesh, mode: str, *, donate_state: bool = False
) -> Callable[..., Any]:
    """Compiles `function(state, data, *batches)` of one replica for all devices of the mesh.

    Args:
        function: gets `state` and `data` whole and, of each array in `batches`, the replica's
            share [steps, B / replicas, ...]. Its result must be the same on all replicas.
        mesh: devices.
        mode: "shard_map" or "pmap"; the numbers are the same.
        donate_state: reuse the memory of `state` for the result.

    Returns:
        Function of (state, data, *batches) with trees of arrays [steps, B, ...] over the global
        batch.

    Raises:
        UsageError: unknown mode.
    """
    donated = (0,) if donate_state else ()
    if mode == "shard_map":

        def call(state: Any, data: Any, *batches: Any) -> Any:
            whole, share = PartitionSpec(), PartitionSpec(None, AXIS)
            mapped = jax.shard_map(
                function,
                mesh=mesh,
                in_specs=(whole, whole, *(share for _ in batches)),
                out_specs=whole,
                # The function's own collectives make its result the same on all replicas.
                check_vma=False,
            )
            return mapped(state, data, *batches)

        return jax.jit(call, donate_argnums=donated)
    if mode == "pmap":
        num_replicas = mesh.devices.size

        def call_pmap(state: Any, data: Any, *batches: Any) -> Any:
            shares = jax.tree.map(
                lambda b: b.reshape(b.shape[0], num_replicas, -1, *b.shape[2:]), batches
            )
            mapped = jax.pmap(
                function,
                AXIS,
                in_axes=(None, None, *(1 for _ in batches)),
                out_axes=None,
                devices=list(mesh.devices),
                donate_argnums=donated,
            )
            return mapped(state, data, *shares)

        return call_pmap
    raise UsageError(f"parallel={mode!r} is unknown: choose 'shard_map' or 'pmap'")
