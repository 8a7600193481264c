"""Handlers with which Orbax reads arrays, that do not leave when one cannot be read.

handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers_that_wait())

Orbax reads all arrays at once, and closes its event loop at the first that fails. TensorStore's
threads then find it closed when they come with the others, and each prints a traceback.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

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


def handlers_that_wait() -> Any:
    """A registry of handlers for arrays of JAX and of NumPy."""
    return ocp.type_handlers.create_type_handler_registry(
        (jax.Array, _Arrays()), (np.ndarray, _NumpyArrays())
    )
