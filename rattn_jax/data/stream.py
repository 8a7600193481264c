"""Streams batches of data that does not fit on the device, decoded in the background with Grain.

The examples of a batch and their crops are functions of (seed, step), so there is no iterator state
to save: a resumed run starts its stream at its step. Each process reads only its shard of a batch.
"""

import dataclasses
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import grain
import numpy as np

from rattn_jax.data.boxes import ChooseBox, center_box, random_box
from rattn_jax.data.dataset import Source
from rattn_jax.data.exclude import matching
from rattn_jax.data.read import (
    BadExample,
    Loaded,
    bad_test_example,
    load,
    nothing_usable,
    too_many_bad,
)
from rattn_jax.data.sampling import Members, training_index
from rattn_jax.parallel.mesh import WHOLE, ProcessShard

_CROP_STREAM = 0x43524F50  # keeps crops apart from the order of examples, which has the same seed
_CROP_TRIES = 10
_BLOCK = 256  # places whose random numbers are drawn together


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        batch_size: size of the global batch.
        size: height and width of the images.
        num_classes: number of classes.
        num_threads: number of threads that decode images.
        share: this process's shard of each batch.
        exact: see `load_crop`.
    """

    batch_size: int
    size: int
    num_classes: int
    num_threads: int
    share: ProcessShard = WHOLE
    exact: bool = True

    @property
    def local_batch_size(self) -> int:
        """Number of examples of each batch that this process reads."""
        return self.batch_size // self.share.count

    def place(self, batch: int, offset: int) -> int:
        """Position of an example of this process in the sequence of all batches."""
        first = batch * self.batch_size + self.share.index * self.local_batch_size
        return first + offset


class TrainingBatch(NamedTuple):
    """This process's shard of a batch.

    Attributes:
        images: uint8 [B, S, S, 3].
        labels: int32 [B], with label noise.
        bad_examples: bad examples that were replaced.
    """

    images: np.ndarray
    labels: np.ndarray
    bad_examples: tuple[BadExample, ...]


class EvaluationBatch(NamedTuple):
    """This process's shard of a batch.

    Attributes:
        images: uint8 [B, S, S, 3].
        labels: clean labels, int32 [B].
        mask: bool [B], False for padding and excluded examples.
        excluded: the names that exclude examples, one for each.
    """

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    excluded: tuple[str, ...]


def training_batches(
    source: Source,
    steps: range,
    options: StreamOptions,
    *,
    seed: int,
    crop_area: tuple[float, float] | None,
    max_bad_examples: int,
    members: Members | None = None,
) -> Generator[TrainingBatch]:
    """Yields the batches of some steps, in order.

    A bad example is replaced by the next good one of the split, so that batches keep their size and
    remain a function of (seed, step).

    Args:
        source: the training split.
        steps: steps of the batches.
        options: options of the stream.
        seed: seed of the run.
        crop_area: see `random_box`; None takes the largest center square.
        max_bad_examples: number of consecutive bad examples that are replaced.
        members: see `training_indices`.

    Raises:
        DataError: a label is out of range, or more examples are bad.
    """
    local, whole = options.local_batch_size, center_box(1.0)

    def read(position: int) -> tuple[Loaded, list[BadExample]]:
        place = options.place(*divmod(position, local))
        index = training_index(seed, place, len(source), members)
        box = whole if crop_area is None else random_box(crop_draws(seed, place), crop_area)
        return _load_good(source, index, box, options, max_bad_examples)

    def collate(items: Sequence[tuple[Loaded, list[BadExample]]]) -> TrainingBatch:
        return TrainingBatch(
            np.stack([found.image for found, _ in items]),
            np.array([found.label for found, _ in items], np.int32),
            tuple(example for _, bad in items for example in bad),
        )

    positions = range(steps.start * local, steps.stop * local)
    yield from _stream(positions, read, collate, local, options.num_threads)


def _load_good(
    source: Source, index: int, box: ChooseBox, options: StreamOptions, max_bad: int
) -> tuple[Loaded, list[BadExample]]:
    """Loads a training example or, if it is bad, the next good one; and those that were bad."""
    size, num_classes, exact = options.size, options.num_classes, options.exact
    bad: list[BadExample] = []
    for other in range(index, index + min(max_bad + 1, len(source))):
        position = other % len(source)
        found = load(source, position, box, size, num_classes, fast=True, exact=exact)
        if isinstance(found, Loaded):
            return found, bad
        bad.append(found)
    if len(bad) == len(source):
        raise nothing_usable(bad[0])
    raise too_many_bad({example.name: example.reason for example in bad}, max_bad)


def evaluation_batches(
    source: Source,
    options: StreamOptions,
    *,
    crop_fraction: float,
    excluded: frozenset[str] = frozenset(),
) -> Generator[EvaluationBatch]:
    """Batches that hold every example exactly once, padded to equal shapes.

    Args:
        source: the split.
        options: options of the stream.
        crop_fraction: see `center_box`.
        excluded: names of examples that do not count; see `exclude.py`.

    Raises:
        DataError: a bad example, or a label out of range.
    """
    local, size = options.local_batch_size, options.size
    num_batches = -(-len(source) // options.batch_size)
    box = center_box(crop_fraction)

    def read(position: int) -> Loaded | None:
        place = options.place(*divmod(position, local))
        if place >= len(source):
            return None
        found = load(source, place, box, size, options.num_classes, exact=options.exact)
        if isinstance(found, Loaded):
            return found
        if matching(found.path, excluded) is not None:
            return Loaded(np.zeros((size, size, 3), np.uint8), 0, 0, found.path)
        raise bad_test_example(found)

    def collate(items: Sequence[Loaded | None]) -> EvaluationBatch:
        images = np.zeros((local, size, size, 3), np.uint8)
        labels, mask = np.zeros(local, np.int32), np.zeros(local, bool)
        matches: list[str] = []
        for i, item in enumerate(items):
            if item is not None:
                images[i], labels[i] = item.image, item.clean_label
                match = matching(item.path, excluded)
                mask[i] = match is None
                matches += [] if match is None else [match]
        return EvaluationBatch(images, labels, mask, tuple(matches))

    yield from _stream(range(num_batches * local), read, collate, local, options.num_threads)


def crop_draws(seed: int, place: int) -> np.ndarray:
    """Random numbers for the crop at a position of the endless sequence of epochs.

    Args:
        seed: seed of the run.
        place: the position.

    Returns:
        float64 [tries, 4], for `random_box`.
    """
    block, offset = divmod(place, _BLOCK)
    return _block_draws(seed, block)[offset]


@lru_cache(maxsize=16)
def _block_draws(seed: int, block: int) -> np.ndarray:
    # RandomState never changes (NumPy's NEP 19).
    generator = np.random.RandomState([seed, _CROP_STREAM, block])
    return generator.random_sample((_BLOCK, _CROP_TRIES, 4))


def _stream(
    positions: range, read: Any, collate: Any, batch_size: int, num_threads: int
) -> Generator[Any]:
    """`collate` of `batch_size` times `read(position)`, with two batches under way."""
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * batch_size)
    dataset = (
        # In a tuple, because Grain treats None as filtered out.
        grain.MapDataset.range(positions.start, positions.stop)
        .map(lambda position: (read(position),))
        .to_iter_dataset(options)
        .batch(batch_size, batch_fn=lambda items: collate([item for (item,) in items]))
    )
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()
