"""What a compiled step is given: data that lives on the device, or batches that stream to it.

feed.training(first, last)       # (data, rows [last - first, B, ...]) of the updates in between
feed.evaluation("test")          # the split's batches: (data, rows, mask)

Both kinds see the same examples in the same order: it is a function of (seed, step) alone.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from rattn_jax.data.batches import Batch, Data, Normalization, ResidentData, StreamedData
from rattn_jax.data.read import BadExamples, Split
from rattn_jax.data.sampling import evaluation_indices, training_indices
from rattn_jax.data.stream import EvaluationBatch, TrainingBatch
from rattn_jax.parallel.mesh import add_up, join_shares, process_share, replicate


class Evaluation(NamedTuple):
    """Batches of an evaluation, for one call.

    Attributes:
        data: what stays on the device.
        rows: [batches, B, ...].
        mask: bool [batches, B], False for examples that do not count.
    """

    data: Data
    rows: Any
    mask: np.ndarray


class Feed(Protocol):
    """Source of training and evaluation batches.

    Attributes:
        num_evaluated: examples that the last evaluation of each split had to count.
        normalization: of the images.
    """

    num_evaluated: dict[str, int]
    normalization: Normalization

    def training(self, first: int, last: int) -> tuple[Data, Any]:
        """What updates `first` ... `last - 1` are given; `rows` is [last - first, B, ...]."""
        ...

    def evaluation(self, split: str) -> Generator[Evaluation]:
        """The batches of a split, each example once."""
        ...

    def batch(self, step: int) -> Batch:
        """This process's share of what update `step` is given, on the host."""
        ...

    def examples(self, split: str, positions: Sequence[int]) -> Batch:
        """Some examples of a split to evaluate, on the host; other processes take no part."""
        ...

    def close(self) -> None:
        """Ends what goes on in the background."""
        ...


class ResidentFeed:
    """Splits that live on every device, whole. See `Feed`.

    Args:
        train: training split.
        evaluated: splits to evaluate, by name.
        normalization: of the images.
        mesh: devices.
        seed: seed of the run.
        batch_size: size of the global batch.
        eval_batches_per_call: batches of an evaluation to give together, at most.
    """

    def __init__(
        self,
        train: Split,
        evaluated: Mapping[str, Split],
        normalization: Normalization,
        *,
        mesh: Mesh,
        seed: int,
        batch_size: int,
        eval_batches_per_call: int,
    ) -> None:
        self._mesh, self._share = mesh, process_share()
        self._seed, self._batch_size, self._batches = seed, batch_size, eval_batches_per_call
        self.num_evaluated = {name: len(split) for name, split in evaluated.items()}
        self.normalization = normalization
        self._num_train = len(train)
        self._train = replicate(ResidentData(train.images, train.labels, normalization), mesh)
        self._evaluated = {
            name: replicate(ResidentData(split.images, split.clean_labels, normalization), mesh)
            for name, split in evaluated.items()
        }

    def training(self, first: int, last: int) -> tuple[Data, Any]:
        """See `Feed`."""
        rows = [
            training_indices(self._seed, step, self._batch_size, self._num_train)
            for step in range(first, last)
        ]
        return self._train, join_shares(self._share.of(np.stack(rows)), self._mesh)

    def evaluation(self, split: str) -> Generator[Evaluation]:
        """See `Feed`."""
        count = self.num_evaluated[split]
        for indices, mask in evaluation_indices(self._batch_size, count, self._batches):
            yield Evaluation(
                self._evaluated[split],
                *join_shares((self._share.of(indices), self._share.of(mask)), self._mesh),
            )

    def batch(self, step: int) -> Batch:
        """See `Feed`."""
        indices = training_indices(self._seed, step, self._batch_size, self._num_train)
        mine = self._share.of(indices[None])[0]
        images, labels = np.asarray(self._train.images), np.asarray(self._train.labels)
        return Batch(images[mine], labels[mine])

    def examples(self, split: str, positions: Sequence[int]) -> Batch:
        """See `Feed`."""
        data = self._evaluated[split]
        chosen = np.asarray(positions)
        images, labels = (x.addressable_data(0)[chosen] for x in (data.images, data.labels))
        return Batch(np.asarray(images), np.asarray(labels))

    def close(self) -> None:
        """See `Feed`."""


class StreamingFeed:
    """Splits that are read, decoded and cropped in the background. See `Feed`.

    Args:
        train: the batches of a range of steps; see `training_batches`.
        evaluated: the batches of each split to evaluate, by name; see `evaluation_batches`.
        examples: reads some examples of a split, by its name.
        normalization: of the images.
        mesh: devices.
        num_examples: size of each split to evaluate, with what is excluded.
        num_train_steps: where the training stream ends.
        bad_examples: where to report those that were skipped.
    """

    def __init__(
        self,
        train: Callable[[range], Generator[TrainingBatch]],
        evaluated: Mapping[str, Callable[[], Generator[EvaluationBatch]]],
        examples: Mapping[str, Callable[[Sequence[int]], Split]],
        normalization: Normalization,
        *,
        mesh: Mesh,
        num_examples: Mapping[str, int],
        num_train_steps: int,
        bad_examples: BadExamples,
    ) -> None:
        self._train, self._evaluated, self._mesh = train, evaluated, mesh
        self._examples, self.normalization = examples, normalization
        self._data = replicate(StreamedData(normalization), mesh)
        self._num_examples, self._num_train_steps = num_examples, num_train_steps
        self._bad_examples = bad_examples
        self._stream: Generator[TrainingBatch] | None = None
        self._next_step = 0  # of the stream
        self.num_evaluated: dict[str, int] = {}  # known once a split has been read

    def training(self, first: int, last: int) -> tuple[Data, Any]:
        """See `Feed`; waits for the batches."""
        if self._stream is None or first != self._next_step:
            self.close()
            self._stream = self._train(range(first, self._num_train_steps))
        rows = []
        for _ in range(first, last):
            batch = next(self._stream)
            self._bad_examples.report(batch.bad_examples)
            rows.append(Batch(batch.images, batch.labels))
        self._next_step = last
        images, labels = zip(*rows, strict=True)
        stacked = Batch(np.stack(images), np.stack(labels))
        return self._data, join_shares(stacked, self._mesh)

    def evaluation(self, split: str) -> Generator[Evaluation]:
        """See `Feed`."""
        num_excluded = 0
        for batch in self._evaluated[split]():
            num_excluded += batch.num_excluded
            rows = (Batch(batch.images[None], batch.labels[None]), batch.mask[None])
            yield Evaluation(self._data, *join_shares(rows, self._mesh))
        self.num_evaluated[split] = self._num_examples[split] - add_up(num_excluded)

    def batch(self, step: int) -> Batch:
        """See `Feed`."""
        with closing(self._train(range(step, step + 1))) as stream:
            batch = next(stream)
        return Batch(batch.images, batch.labels)

    def examples(self, split: str, positions: Sequence[int]) -> Batch:
        """See `Feed`."""
        found = self._examples[split](positions)
        return Batch(found.images, found.clean_labels)

    def close(self) -> None:
        """See `Feed`."""
        if self._stream is not None:
            self._stream.close()
