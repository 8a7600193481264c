"""Data parallelism: maps a per-replica function over a mesh of devices.

    step = data_parallel(function, mesh, "shard_map", num_batches=1, donate_state=True)
    state = step(replicate(state, mesh), replicate(data, mesh), indices)

The function itself reduces its results over DATA_AXIS (`jax.lax.pmean`, ...).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import DATA_AXIS, SHARED


def data_parallel(
    function: Callable[..., Any],
    mesh: Mesh,
    mode: str,
    *,
    num_batches: int,
    donate_state: bool = False,
) -> Any:
    """Maps `function(state, data, *batches)` of one replica over all devices of the mesh.

    Args:
        function: gets replicated `state` and `data`, and its shard [steps, B / replicas, ...] of
            each array in `batches`. Its result must be the same on all replicas.
        mesh: devices.
        mode: "shard_map" or "pmap"; the numbers are the same.
        num_batches: number of `batches`.
        donate_state: reuse the memory of `state` for the result.

    Returns:
        Function of (state, data, *batches) with trees of arrays [steps, B, ...] over the global
        batch; it can be lowered and compiled ahead of time, as those of `jax.jit`.

    Raises:
        UsageError: unknown mode, or one that this version of JAX lacks.
    """
    donated = (0,) if donate_state else ()
    if mode == "shard_map":
        whole = PartitionSpec()
        mapped = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(whole, whole, *[SHARED] * num_batches),
            out_specs=whole,
            # The collectives of the function make its result the same on all replicas.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)
    if mode == "pmap":
        if not hasattr(jax, "pmap"):
            raise UsageError(
                f"parallel='pmap': JAX {jax.__version__} has no pmap any more; choose 'shard_map', "
                "which gives the same numbers"
            )
        mapped = jax.pmap(
            function,
            DATA_AXIS,
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

    def memory_analysis(self) -> Any:
        return self._function.memory_analysis()


def _splitter(mesh: Mesh) -> Callable[[Any], Any]:
    """Function of a tree of batches [steps, B, ...] that gives [steps, replicas, B, ...]."""

    def split(batches: Any) -> Any:
        size = mesh.devices.size
        return jax.tree.map(lambda b: b.reshape(b.shape[0], size, -1, *b.shape[2:]), batches)

    if jax.process_count() == 1:
        return split
    return jax.jit(split, out_shardings=NamedSharding(mesh, SHARED))  # each device keeps its own
