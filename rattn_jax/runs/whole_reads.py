"""Reads the arrays of a checkpoint with Orbax, and does not leave when one cannot be read.

state = read_arrays(directory / "100" / "state")

Orbax reads all arrays at once, and closes its event loop at the first that fails. TensorStore's
threads then find it closed when they come with the others, and each prints a traceback.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

Result = TypeVar("Result")


async def to_the_end(reading: Awaitable[Result]) -> Result:
    """Awaits what reads; if it fails, only after all that it has begun has ended, too."""
    before = asyncio.all_tasks()
    try:
        return await reading
    except Exception:
        await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
        raise


class _Arrays(ocp.type_handlers.ArrayHandler):
    async def metadata(self, infos: Any) -> Any:
        return await to_the_end(super().metadata(infos))


class _NumpyArrays(ocp.type_handlers.NumpyHandler):
    async def metadata(self, infos: Any) -> Any:
        return await to_the_end(super().metadata(infos))

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        return await to_the_end(super().deserialize(infos, args))


def read_arrays(folder: epath.Path) -> dict[str, Any]:
    """The arrays in a folder of Orbax as nested dictionaries of NumPy arrays.

    Raises:
        Exception: one of them is damaged; the type depends on the library that notices.
    """
    handlers = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, _Arrays()), (np.ndarray, _NumpyArrays())
    )
    # Without an Orbax checkpointer around it, the handler does not wait for other processes.
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers)
    on_host = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(folder).tree
    )
    state: dict[str, Any] = handler.restore(
        folder, args=ocp.args.PyTreeRestore(restore_args=on_host)
    )
    handler.close()
    return state
