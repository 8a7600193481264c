"""What a compiled step is given: data that lives on the device, or batches that stream to it.

feed.training(first, last)       # (data, rows [last - first, B, ...]) of the updates in between
feed.evaluation("test")          # the split's batches: (data, rows, mask)

Both kinds see the same examples in the same order: it is a function of (seed, step) alone.
`build_feed` chooses one of them by the size of the dataset.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import (
    FIXED_NORMALIZATIONS,
    Batch,
    Data,
    Normalization,
    ResidentData,
    StreamedData,
    mean_image_normalization,
)
from rattn_jax.data.dataset import Dataset, DatasetSpec, Source, Subset
from rattn_jax.data.read import BadExamples, Split, load_split, read_blacklist
from rattn_jax.data.sampling import evaluation_indices, training_indices
from rattn_jax.data.splits import build_splits
from rattn_jax.data.stream import (
    EvaluationBatch,
    TrainingBatch,
    evaluation_batches,
    training_batches,
)
from rattn_jax.errors import UsageError
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


def image_sizes(config: RunConfig, spec: DatasetSpec) -> tuple[int, int]:
    """Height and width of training images, and of those in evaluation.

    Raises:
        UsageError: neither config nor dataset has a size.
    """
    size = config.dataset.image_size or spec.image_size
    if size is None:
        raise UsageError(
            f"config.dataset.image_size is not set, and images of {config.dataset.name} have "
            "different sizes: say to how many pixels they are scaled, such as 224"
        )
    return size, config.dataset.eval_image_size or size


def is_resident(config: RunConfig, dataset: Dataset, sizes: tuple[int, int]) -> bool:
    """Whether the dataset, decoded to these `image_sizes`, is small enough for the device."""
    num_bytes = 3 * (len(dataset.train) * sizes[0] ** 2 + len(dataset.test) * sizes[1] ** 2)
    return num_bytes <= config.dataset.max_resident_bytes


def build_feed(
    config: RunConfig,
    dataset: Dataset,
    sizes: tuple[int, int],
    *,
    resident: bool,
    mesh: Mesh,
    eval_batches: int,
) -> Feed:
    """What the steps are given; reads the whole dataset if it is to be `resident`."""
    train, evaluated = build_splits(config, dataset)
    size, eval_size = sizes
    blacklist = config.dataset.validation_blacklist
    excluded: dict[str, frozenset[str]] = dict.fromkeys(evaluated, frozenset())
    if blacklist:
        excluded["test"] = read_blacklist(blacklist)
    num_threads = config.dataset.num_threads or os.cpu_count() or 1
    max_bad_examples = config.dataset.max_bad_examples
    crop_fraction = config.dataset.eval_crop_fraction
    wants_mean_image = config.normalization == "mean_image"
    if not resident:
        if wants_mean_image:
            raise UsageError(
                f"config.normalization='mean_image' needs all images of {dataset.name} on the "
                "device, and they stream: use 'imagenet', or a larger dataset.max_resident_bytes"
            )
        common: dict[str, Any] = {
            "batch_size": config.batch_size,
            "num_classes": dataset.num_classes,
            "num_threads": num_threads,
            "share": process_share(),
        }
        return StreamingFeed(
            partial(
                training_batches,
                train,
                seed=config.seed,
                size=size,
                crop_area=config.augmentation.scale_crop,
                max_bad_examples=max_bad_examples,
                **common,
            ),
            {
                name: partial(
                    evaluation_batches,
                    source,
                    size=eval_size,
                    crop_fraction=crop_fraction,
                    excluded=excluded[name],
                    **common,
                )
                for name, source in evaluated.items()
            },
            {
                name: partial(
                    _load_some,
                    source,
                    size=eval_size,
                    crop_fraction=crop_fraction,
                    num_classes=dataset.num_classes,
                    num_threads=num_threads,
                )
                for name, source in evaluated.items()
            },
            FIXED_NORMALIZATIONS[config.normalization](),
            mesh=mesh,
            num_examples={name: len(source) for name, source in evaluated.items()},
            num_train_steps=config.num_train_steps,
            bad_examples=BadExamples(max_bad_examples),
        )
    if wants_mean_image and size != eval_size:
        raise UsageError(
            f"config.dataset.eval_image_size={eval_size} is not the image size {size}, of which "
            "the mean image is: use config.normalization='imagenet', or equal sizes"
        )
    load = partial(load_split, num_classes=dataset.num_classes, num_threads=num_threads)
    train_split = load(train, size=size, bad_examples=BadExamples(max_bad_examples))
    evaluated_splits = {
        name: load(
            source,
            size=eval_size,
            crop_fraction=crop_fraction,
            excluded=excluded[name],
        )
        for name, source in evaluated.items()
    }
    normalization = (
        mean_image_normalization(train_split.images)
        if wants_mean_image
        else FIXED_NORMALIZATIONS[config.normalization]()
    )
    return ResidentFeed(
        train_split,
        evaluated_splits,
        normalization,
        mesh=mesh,
        seed=config.seed,
        batch_size=config.batch_size,
        eval_batches_per_call=eval_batches,
    )


def _load_some(source: Source, positions: Sequence[int], **keywords: Any) -> Split:
    return load_split(Subset(source, positions), **keywords)
