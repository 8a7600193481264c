"""Data loaders: resident data on the device, or batches that are streamed to it.

    loader.train(step, count)        # Batches of `count` updates, starting after `step`
    loader.eval("test")              # the Batches of a split, each example once

Both loaders yield the same examples in the same order, a function of (seed, step). In place of a
bad training example the next good one comes, with its own label. In a balanced order the bad one
counts in its own class, as it does for `class_weights`.
`open_loader.py` chooses one of them by the size of the dataset.
"""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from rattn_jax.config.schema import BALANCED, DatasetConfig, RunConfig
from rattn_jax.data.batches import (
    Batch,
    Data,
    Normalization,
    ResidentData,
    StreamedData,
)
from rattn_jax.data.dataset import Source, Subset
from rattn_jax.data.exclude import note_matches
from rattn_jax.data.read import BadExamples, Split, load_split
from rattn_jax.data.sampling import class_members, evaluation_indices, training_indices
from rattn_jax.data.stream import (
    StreamOptions,
    TrainingBatch,
    evaluation_batches,
    training_batches,
)
from rattn_jax.parallel.cpus import num_cpus
from rattn_jax.parallel.mesh import (
    is_on_cpu,
    process_shard,
    replicate,
    sum_over_processes,
    to_global_arrays,
)

_EVAL_BATCHES_PER_CALL = 100  # on accelerators, where the data is resident


class ImageSizes(NamedTuple):
    """Height and width of images, in pixels.

    Attributes:
        train: size in training.
        eval: size in evaluation.
    """

    train: int
    eval: int


class Batches(NamedTuple):
    """Batches for one call of a compiled step.

    Attributes:
        data: resident data.
        rows: indices of the examples, int32 [batches, B], or a `Batch` of arrays [batches, B, ...];
            see `take`.
        mask: bool [batches, B], False for examples that do not count; None in training.
    """

    data: Data
    rows: Any
    mask: Any = None


class Loader(Protocol):
    """Interface of the data loaders.

    Attributes:
        normalization: of the images.
        resident: whether all data is on the device.
    """

    normalization: Normalization
    resident: bool

    def train(self, step: int, count: int) -> Batches:
        """The batches of updates `step` ... `step + count - 1`."""
        ...

    def eval(self, split: str) -> Generator[Batches]:
        """The batches of a split, each example once."""
        ...

    def num_examples(self, split: str) -> int:
        """Number of examples that count; of a stream, known after its evaluation."""
        ...

    def host_batch(self, step: int) -> Batch:
        """This process's shard of the batch of update `step`, on the host."""
        ...

    def read(self, split: str, positions: Sequence[int]) -> Batch:
        """Reads some examples of an evaluated split, on the host, without other processes.

        Those that are excluded are left out.
        """
        ...

    def names(self, split: str, positions: Sequence[int]) -> list[str]:
        """Names of some examples of an evaluated split."""
        ...

    def close(self) -> None:
        """Stops background threads."""
        ...


class ResidentLoader:
    """Loader of splits that are resident on every device. See `Loader`.

    Args:
        train: training split.
        evaluated: splits to evaluate, by name.
        normalization: of the images.
        mesh: devices.
        seed: seed of the run.
        batch_size: size of the global batch.
        balanced: whether training takes as many examples of each class; see `sampling.py`.
    """

    resident = True

    def __init__(
        self,
        train: Split,
        evaluated: Mapping[str, Split],
        normalization: Normalization,
        mesh: Mesh,
        *,
        seed: int,
        batch_size: int,
        balanced: bool = False,
    ) -> None:
        self._mesh, self._shard = mesh, process_shard()
        self._seed, self._batch_size, self._num_train = seed, batch_size, len(train)
        self._members = class_members(train.source.labels()) if balanced else None
        self.normalization = normalization
        data = ResidentData(train.images, train.labels, normalization, np.uint32(seed))
        self._train = replicate(data, mesh)
        self._sources = {name: split.source for name, split in evaluated.items()}
        self._evaluated = {
            name: replicate(ResidentData(split.images, split.clean_labels, normalization), mesh)
            for name, split in evaluated.items()
        }

    def train(self, step: int, count: int) -> Batches:
        """See `Loader`."""
        rows = np.stack([self._indices(s) for s in range(step, step + count)])
        return Batches(self._train, to_global_arrays(self._shard.of(rows), self._mesh))

    def eval(self, split: str) -> Generator[Batches]:
        """See `Loader`."""
        at_once = 1 if is_on_cpu(self._mesh) else _EVAL_BATCHES_PER_CALL
        for rows in evaluation_indices(self._batch_size, self.num_examples(split), at_once):
            mine = tuple(self._shard.of(values) for values in rows)
            yield Batches(self._evaluated[split], *to_global_arrays(mine, self._mesh))

    def num_examples(self, split: str) -> int:
        """See `Loader`."""
        return len(self._evaluated[split].labels)

    def host_batch(self, step: int) -> Batch:
        """See `Loader`."""
        mine = self._shard.of(self._indices(step)[None])[0]
        images, labels = np.asarray(self._train.images), np.asarray(self._train.labels)
        return Batch(images[mine], labels[mine])

    def read(self, split: str, positions: Sequence[int]) -> Batch:
        """See `Loader`."""
        data = self._evaluated[split]
        chosen = np.asarray(positions)
        images, labels = (x.addressable_data(0)[chosen] for x in (data.images, data.labels))
        return Batch(np.asarray(images), np.asarray(labels))

    def names(self, split: str, positions: Sequence[int]) -> list[str]:
        """See `Loader`."""
        return [self._sources[split].name(position) for position in positions]

    def close(self) -> None:
        """See `Loader`."""

    def _indices(self, step: int) -> np.ndarray:
        return training_indices(self._seed, step, self._batch_size, self._num_train, self._members)


class StreamedLoader:
    """Loader of splits that are read, decoded and cropped in the background. See `Loader`.

    Args:
        train: training split.
        evaluated: splits to evaluate, by name.
        normalization: of the images.
        mesh: devices.
        config: the run's config.
        sizes: of the images.
        num_classes: number of classes.
        excluded: names of test examples that do not count; see `exclude.py`.
    """

    resident = False

    def __init__(
        self,
        train: Source,
        evaluated: Mapping[str, Source],
        normalization: Normalization,
        mesh: Mesh,
        config: RunConfig,
        sizes: ImageSizes,
        num_classes: int,
        excluded: frozenset[str],
    ) -> None:
        self._source, self._evaluated = train, evaluated
        balanced = config.dataset.sampling == BALANCED
        self._members = class_members(train.labels()) if balanced else None
        self.normalization = normalization
        self._mesh, self._config, self._excluded = mesh, config, excluded
        self._options, self._eval_options = (
            StreamOptions(
                config.batch_size,
                size,
                num_classes,
                num_threads(config.dataset),
                process_shard(),
                config.dataset.exact_pixels,
            )
            for size in sizes
        )
        self._data = replicate(StreamedData(normalization, np.uint32(config.seed)), mesh)
        self._bad_examples = BadExamples(config.dataset.max_bad_examples)
        self._stream: Generator[TrainingBatch] | None = None
        self._next_step = 0  # of the stream
        self._num_examples: dict[str, int] = {}

    def train(self, step: int, count: int) -> Batches:
        """See `Loader`; waits for the batches."""
        if self._stream is None or step != self._next_step:
            self.close()
            self._stream = self._read_from(step, self._config.num_train_steps)
        rows = []
        for _ in range(count):
            batch = next(self._stream)
            self._bad_examples.report(batch.bad_examples)
            rows.append(Batch(batch.images, batch.labels))
        self._next_step = step + count
        images, labels = zip(*rows, strict=True)
        stacked = Batch(np.stack(images), np.stack(labels))
        return Batches(self._data, to_global_arrays(stacked, self._mesh))

    def eval(self, split: str) -> Generator[Batches]:
        """See `Loader`."""
        counts: Counter[str] = Counter()
        excluded = self._excluded if split == "test" else frozenset()
        batches = evaluation_batches(
            self._evaluated[split],
            self._eval_options,
            crop_fraction=self._config.dataset.eval_crop_fraction,
            excluded=excluded,
        )
        with closing(batches):
            for batch in batches:
                counts.update(batch.excluded)
                rows = (Batch(batch.images[None], batch.labels[None]), batch.mask[None])
                yield Batches(self._data, *to_global_arrays(rows, self._mesh))
        names = sorted(excluded)
        totals = sum_over_processes([counts[name] for name in names])
        if split not in self._num_examples:
            note_matches(excluded, dict(zip(names, totals, strict=True)))
        self._num_examples[split] = len(self._evaluated[split]) - sum(totals)

    def num_examples(self, split: str) -> int:
        """See `Loader`."""
        # Before its first evaluation, with those that are excluded.
        return self._num_examples.get(split, len(self._evaluated[split]))

    def host_batch(self, step: int) -> Batch:
        """See `Loader`."""
        with closing(self._read_from(step, step + 1)) as stream:
            batch = next(stream)
        return Batch(batch.images, batch.labels)

    def read(self, split: str, positions: Sequence[int]) -> Batch:
        """See `Loader`."""
        options = self._eval_options
        found = load_split(
            Subset(self._evaluated[split], positions),
            size=options.size,
            num_classes=options.num_classes,
            crop_fraction=self._config.dataset.eval_crop_fraction,
            num_threads=options.num_threads,
            exact=options.exact,
            excluded=self._excluded if split == "test" else frozenset(),
        )
        return Batch(found.images, found.clean_labels)

    def names(self, split: str, positions: Sequence[int]) -> list[str]:
        """See `Loader`."""
        return [self._evaluated[split].name(position) for position in positions]

    def close(self) -> None:
        """See `Loader`."""
        if self._stream is not None:
            self._stream.close()

    def _read_from(self, step: int, end: int) -> Generator[TrainingBatch]:
        return training_batches(
            self._source,
            range(step, end),
            self._options,
            seed=self._config.seed,
            crop_area=self._config.augmentation.resized_crop_area,
            max_bad_examples=self._config.dataset.max_bad_examples,
            members=self._members,
        )


def num_threads(config: DatasetConfig) -> int:
    """Number of threads that decode images."""
    return config.num_threads or num_cpus()
