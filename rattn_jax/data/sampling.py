"""Order of the training examples: a pure function of (seed, step).

Epochs follow each other without a gap, each in its own random order; step s takes positions
s * B ... s * B + B - 1 of this endless sequence. A run that resumes at any step, on any number of
devices, therefore continues with the same examples, and sees each of them once per epoch.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    # RandomState's stream is frozen by NumPy's policy (NEP 19): the order is the same under
    # every version.
    return np.random.RandomState([seed, epoch]).permutation(num_examples).astype(np.int32)


def training_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Indices of the global batch of a step.

    Args:
        seed: seed of the run, 0 <= seed < 2**32.
        step: number of updates done before.
        batch_size: size of the global batch; may exceed `num_examples`.
        num_examples: size of the training split.

    Returns:
        Indices into the split, int32 [batch_size].
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(places, num_examples)
    indices = np.empty(batch_size, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _epoch_order(seed, int(epoch), num_examples)[offsets[here]]
    return indices


def training_index(seed: int, place: int, num_examples: int) -> int:
    """Index at a position of the endless sequence of epochs; see `training_indices`."""
    epoch, offset = divmod(place, num_examples)
    return int(_epoch_order(seed, epoch, num_examples)[offset])


def evaluation_indices(
    batch_size: int, num_examples: int, batches_per_call: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches that contain every example exactly once, padded to equal shapes.

    Args:
        batch_size: examples a batch.
        num_examples: size of the split, at least 1.
        batches_per_call: maximum number of batches to yield together.

    Yields:
        Indices, int32 [batches, batch_size], and a mask, bool of the same shape. Padding is
        example 0 under mask False.
    """
    num_batches = math.ceil(num_examples / batch_size)
    num_calls = math.ceil(num_batches / batches_per_call)
    shape = (math.ceil(num_batches / num_calls), batch_size)
    for call in range(num_calls):
        places = np.arange(shape[0] * shape[1]).reshape(shape) + call * shape[0] * shape[1]
        mask = places < num_examples
        yield np.where(mask, places, 0).astype(np.int32), mask
