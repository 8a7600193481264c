"""Predicts many images: threads read and decode ahead of the network.

for name, found in predict_each(network, inputs, batch_size=64):
    found                # probabilities float32 [classes], or why the image cannot be read
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from rattn_jax.data.decoding import BadImageError
from rattn_jax.inference.image_inputs import ImageInput
from rattn_jax.inference.network import Classifier
from rattn_jax.parallel.cpus import num_cpus

_BATCHES_AHEAD = 3  # that are read while the network is at work

Decoded = np.ndarray | str  # an image, or why there is none


def predict_each(
    network: Classifier, inputs: Sequence[ImageInput], *, batch_size: int = 64
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Yields the name of each image, in order, and its probabilities float32 [classes].

    In place of the probabilities of an image that cannot be read there is a text that says why.

    Args:
        network: a trained network.
        inputs: the images.
        batch_size: maximum number of images per batch.
    """
    size, num_threads = min(batch_size, len(inputs)), num_cpus()
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            batches = _decode_ahead(threads, network, inputs, size, -(-size // num_threads))
            for names, decoded, computed in _one_behind(_start(network, batches, size)):
                rows = iter(np.asarray(computed))
                for name, image in zip(names, decoded, strict=True):
                    yield name, image if isinstance(image, str) else next(rows)
        finally:
            threads.shutdown(cancel_futures=True)


def _decode_ahead(
    threads: ThreadPoolExecutor,
    network: Classifier,
    inputs: Sequence[ImageInput],
    size: int,
    share: int,
) -> Iterator[tuple[list[str], list[Decoded]]]:
    """Names and images of each batch of `size`, of which a thread takes `share` at once."""
    waiting: deque[tuple[list[str], list[Future[list[Decoded]]]]] = deque()

    def first() -> tuple[list[str], list[Decoded]]:
        names, futures = waiting.popleft()
        return names, [image for future in futures for image in future.result()]

    for start in range(0, len(inputs), size):
        some = inputs[start : start + size]
        shares = [some[i : i + share] for i in range(0, len(some), share)]
        futures = [threads.submit(_decode_some, network, images) for images in shares]
        waiting.append(([image.name for image in some], futures))
        if len(waiting) > _BATCHES_AHEAD:
            yield first()
    while waiting:
        yield first()


def _decode_some(network: Classifier, images: Sequence[ImageInput]) -> list[Decoded]:
    return [_decode(network, image) for image in images]


def _decode(network: Classifier, image: ImageInput) -> Decoded:
    try:
        return network.decode(image.read())
    except BadImageError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return error.strerror or str(error)


def _start(
    network: Classifier, batches: Iterable[tuple[list[str], list[Decoded]]], size: int
) -> Iterator[tuple[list[str], list[Decoded], Any]]:
    """Has the device compute each batch, without waiting for it."""
    for names, decoded in batches:
        images = [image for image in decoded if isinstance(image, np.ndarray)]
        yield names, decoded, network.start(np.stack(images), size) if images else ()


def _one_behind(started: Iterator[Any]) -> Iterator[Any]:
    """Yields each item when the next one has been started."""
    previous = next(started, None)
    while previous is not None:
        following = next(started, None)
        yield previous
        previous = following
