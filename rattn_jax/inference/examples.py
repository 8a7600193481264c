"""The examples of a split of the data that a trained network has learned from.

examples, excluded = open_split(network, "test")
for batch in read_batches(network, examples, excluded, batch_size=64): ...
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from rattn_jax.config.schema import SIGMOID, LabelNoiseConfig
from rattn_jax.data.catalog import build_dataset
from rattn_jax.data.dataset import Source, Subset
from rattn_jax.data.exclude import exclusions
from rattn_jax.data.loaders import num_threads
from rattn_jax.data.splits import build_splits
from rattn_jax.data.stream import EvaluationBatch, StreamOptions, evaluation_batches
from rattn_jax.errors import UsageError
from rattn_jax.inference.network import Classifier


def open_split(
    network: Classifier, split: str, num_examples: int | None = None
) -> tuple[Source, frozenset[str]]:
    """Examples of a split in random order, and the names of those that do not count.

    In their own order neighbours are often of one class.

    Args:
        network: a trained network.
        split: "test", "train" or, where the run holds some out, "validation".
        num_examples: so many, the same ones every time; None takes all.

    Raises:
        UsageError: no such split, or a dataset that cannot be opened or has other classes.
        DataError: none of the examples counts.
    """
    config = network.config
    if config.loss == SIGMOID:
        raise UsageError(
            "errors of single examples are of one class an image, and this run has several "
            "(config.loss='sigmoid'): evaluate its latest checkpoint with rattn evaluate"
        )
    dataset = build_dataset(config)
    for note in dataset.notes:
        logging.warning("%s", note)
    if dataset.class_names != network.class_names:
        raise UsageError(
            f"{config.dataset.name} has other classes than those of the run: choose the data that "
            "it was trained on"
        )
    # Those that were trained on, with their own labels.
    clean = dataclasses.replace(config.dataset, label_noise=LabelNoiseConfig())
    train, evaluated = build_splits(dataclasses.replace(config, dataset=clean), dataset)
    sources = {"train": train, **evaluated}
    if split not in sources:
        raise UsageError(f"split {split!r} is unknown: this run has {', '.join(sources)}")
    order = np.random.RandomState(0).permutation(len(sources[split]))[:num_examples]
    exclude_file = config.dataset.test_exclude_file if split == "test" else None
    return Subset(sources[split], order), exclusions(exclude_file, sources[split])


def read_batches(
    network: Classifier, examples: Source, excluded: frozenset[str], batch_size: int
) -> Iterator[EvaluationBatch]:
    """Batches as evaluation shows them to the network, the last one padded.

    Raises:
        DataError: an example cannot be used.
    """
    return evaluation_batches(
        examples,
        StreamOptions(
            batch_size=batch_size,
            size=network.image_size,
            num_classes=len(network.class_names),
            num_threads=num_threads(network.config.dataset),
            exact=network.config.dataset.exact_pixels,
        ),
        crop_fraction=network.crop_fraction,
        excluded=excluded,
    )


def split_logits(
    network: Classifier, split: str, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [N, classes] and labels int32 [N] of the examples of a split that count.

    Raises:
        UsageError: see `open_split`; or no example counts.
        DataError: an example cannot be used.
    """
    logits, labels = [], []
    compute, variables = jax.jit(network.logits), jax.device_put(network.variables)
    for batch in read_batches(network, *open_split(network, split), batch_size):
        logits.append(np.asarray(compute(variables, batch.images), np.float32)[batch.mask])
        labels.append(batch.labels[batch.mask])
    if not any(map(len, labels)):
        raise none_counts(network, split)
    return np.concatenate(logits), np.concatenate(labels)


def none_counts(network: Classifier, split: str) -> UsageError:
    """The error where all examples are excluded, or all that were chosen."""
    return UsageError(
        f"dataset.test_exclude_file={network.config.dataset.test_exclude_file!r} excludes every "
        f"example of the split {split!r} that was chosen: choose more of them, or another split"
    )
