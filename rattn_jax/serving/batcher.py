"""Gathers the images of concurrent requests into batches.

batcher = Batcher(compute, sizes=(1, 4, 16))
task = asyncio.create_task(batcher.run())
result = await batcher.submit(image)
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Compute = Callable[[np.ndarray, int], Iterable[Any]]


class Batcher:
    """Computes what has gathered while the batch before was computed; nothing waits for company.

    Args:
        compute: gets images uint8 [B, S, S, 3] and a batch size of at least B, to which it pads
            them; returns a result for each image. It is called in a thread, one call at a time.
        sizes: batch sizes, ascending.
    """

    def __init__(self, compute: Compute, sizes: Sequence[int]) -> None:
        self._compute, self._sizes = compute, sizes
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[Any]]] = asyncio.Queue()

    async def submit(self, image: np.ndarray) -> Any:
        """Result of an image uint8 [S, S, 3]; one whose caller gives up is not computed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, future))
        return await future

    async def run(self) -> None:
        """Computes until it is cancelled."""
        with ThreadPoolExecutor(1, "network") as thread:
            while True:
                batch = [await self._waiting.get()]
                size = self._choose_size(1 + self._waiting.qsize())
                while len(batch) < size and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                wanted = [(image, future) for image, future in batch if not future.done()]
                if wanted:
                    await self._compute_in(thread, *zip(*wanted, strict=True))

    def _choose_size(self, count: int) -> int:
        """Size of the next batch of so many images: less than half of it is padding."""
        enough = next((size for size in self._sizes if size >= count), self._sizes[-1])
        if 2 * count > enough:
            return enough
        return max(size for size in self._sizes if size <= count)

    async def _compute_in(
        self,
        thread: ThreadPoolExecutor,
        images: Sequence[np.ndarray],
        futures: Sequence[asyncio.Future[Any]],
    ) -> None:
        size = next(size for size in self._sizes if size >= len(images))
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(thread, self._compute, np.stack(images), size)
        except Exception as error:  # these requests fail, and not those after them
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)
