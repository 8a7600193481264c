"""Order of the training examples: a pure function of (seed, step).

Epochs follow each other without a gap, each in its own random order; step s takes positions
s * B ... s * B + B - 1 of this endless sequence. A run that resumes at any step, on any number of
devices, therefore continues with the same examples, and sees each of them once per epoch.

In a balanced order rounds follow each other: each round has an example of every class, in random
order, and the examples of a class follow each other in epochs of its own.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from rattn_jax.errors import DataError

_ROUNDS, _CLASSES = 0x524F554E, 0x434C4153  # keep these orders apart from each other
_BLOCK = 256  # rounds whose random numbers are drawn together

Members = Sequence[np.ndarray]


# RandomState's stream is frozen by NumPy's policy (NEP 19): orders never change with its version.
@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.RandomState([seed, epoch]).permutation(num_examples).astype(np.int32)


@lru_cache(maxsize=2**14)  # classes
def _class_order(seed: int, number: int, epoch: int, num_examples: int) -> np.ndarray:
    generator = np.random.RandomState([seed, _CLASSES, number, epoch])
    return generator.permutation(num_examples)


@lru_cache(maxsize=4)
def _rounds(seed: int, block: int, num_classes: int) -> np.ndarray:
    """The order of the classes in the rounds of a block, [_BLOCK, num_classes]."""
    draws = np.random.RandomState([seed, _ROUNDS, block]).random_sample((_BLOCK, num_classes))
    return np.argsort(draws, axis=1, kind="stable")


def class_members(labels: np.ndarray) -> Members:
    """The positions of the examples of each class that has any, for a balanced order.

    Raises:
        DataError: a label is out of range.
    """
    if labels.min() < 0:
        raise DataError(
            f"an example has the label {labels.min()}: must be at least 0; correct the labels or "
            "choose another split"
        )
    by_class = np.argsort(labels, kind="stable").astype(np.int32)
    sizes = np.bincount(labels)
    return np.split(by_class, np.cumsum(sizes[sizes > 0])[:-1])


def training_indices(
    seed: int, step: int, batch_size: int, num_examples: int, members: Members | None = None
) -> np.ndarray:
    """Indices of the global batch of a step.

    Args:
        seed: seed of the run, 0 <= seed < 2**32.
        step: number of updates done before.
        batch_size: size of the global batch; may exceed `num_examples`.
        num_examples: size of the training split.
        members: of the classes, for a balanced order; see `class_members`.

    Returns:
        Indices into the split, int32 [batch_size].
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    if members is not None:
        return _balanced(seed, places, members)
    epochs, offsets = np.divmod(places, num_examples)
    indices = np.empty(batch_size, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _epoch_order(seed, int(epoch), num_examples)[offsets[here]]
    return indices


def training_index(seed: int, place: int, num_examples: int, members: Members | None = None) -> int:
    """Index at a position of the endless sequence; see `training_indices`."""
    if members is not None:
        return int(_balanced(seed, np.array([place]), members)[0])
    epoch, offset = divmod(place, num_examples)
    return int(_epoch_order(seed, epoch, num_examples)[offset])


def _balanced(seed: int, places: np.ndarray, members: Members) -> np.ndarray:
    """Indices at positions of the endless sequence of rounds."""
    rounds, offsets = np.divmod(places, len(members))
    classes = np.empty(len(places), np.int64)
    for block in np.unique(rounds // _BLOCK):
        here = rounds // _BLOCK == block
        order = _rounds(seed, int(block), len(members))
        classes[here] = order[rounds[here] % _BLOCK, offsets[here]]
    indices = np.empty(len(places), np.int32)
    for number in np.unique(classes):
        examples = members[number]
        epochs = np.where(classes == number, rounds // len(examples), -1)
        for epoch in np.unique(epochs[epochs >= 0]):
            here = epochs == epoch
            order = _class_order(seed, int(number), int(epoch), len(examples))
            indices[here] = examples[order[rounds[here] % len(examples)]]
    return indices


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
