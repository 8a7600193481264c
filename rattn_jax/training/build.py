"""From the keys of a config to what they describe; below this, everything has keywords."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rattn_jax.augment import augment_images, regularize
from rattn_jax.data import Dataset, DatasetSpec, Split, load_split, open_dataset
from rattn_jax.data.batches import FIXED_NORMALIZATIONS, mean_image_normalization
from rattn_jax.data.dataset import Source, Subset
from rattn_jax.data.label_noise import LabelNoise, NoisySource, read_matrix, symmetric_matrix
from rattn_jax.data.loaders import Feed, ResidentFeed, StreamingFeed
from rattn_jax.data.read import BadExamples, read_blacklist
from rattn_jax.data.splits import hold_out_count, remaining
from rattn_jax.data.stream import evaluation_batches, training_batches
from rattn_jax.errors import UsageError
from rattn_jax.models import create_model
from rattn_jax.parallel.mesh import AXIS, process_share
from rattn_jax.training.optimizer import make_optimizer, make_schedule


def build_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """The network."""
    keywords = {k: v for k, v in config.model.items() if v is not None and k != "name"}
    if config.sync_batch_norm:
        keywords["norm_axis_name"] = AXIS
    return create_model(config.model.name, num_classes, **keywords)


def build_optimizer(config: ConfigDict) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Schedule of the learning rate, and the optimizer that follows it."""
    optimizer = config.optimizer
    schedule = make_schedule(
        optimizer.schedule,
        learning_rate=optimizer.learning_rate,
        num_train_steps=config.num_train_steps,
        warmup_steps=optimizer.warmup_steps,
        boundaries=optimizer.boundaries,
        decay=optimizer.decay,
    )
    return schedule, make_optimizer(
        optimizer.name,
        schedule,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        decay_norm_and_bias=optimizer.decay_norm_and_bias,
        clip_norm=optimizer.clip_norm,
        stacked=bool(config.model.scan_modules),
        freeze=config.freeze or (),
    )


def build_recipe(config: ConfigDict, num_classes: int, *, crops_on_device: bool) -> dict[str, Any]:
    """Keywords of `prepare`, which say how images and labels are changed."""
    augmentation = dict(config.augmentation)
    if not crops_on_device:
        augmentation["scale_crop"] = None  # the host crops, from the whole image
    return {
        "augment": partial(augment_images, **augmentation),
        "regularize": partial(regularize, **config.regularization),
        "num_classes": num_classes,
        "label_smoothing": config.label_smoothing,
        "seed": config.seed,
    }


def image_sizes(config: ConfigDict, spec: DatasetSpec) -> tuple[int, int]:
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


def is_resident(config: ConfigDict, dataset: Dataset, sizes: tuple[int, int]) -> bool:
    """Whether the dataset, decoded to these `image_sizes`, is small enough for the device."""
    num_bytes = 3 * (len(dataset.train) * sizes[0] ** 2 + len(dataset.test) * sizes[1] ** 2)
    return num_bytes <= config.dataset.max_resident_bytes


def build_dataset(config: ConfigDict) -> Dataset:
    """The dataset, opened."""
    return open_dataset(
        config.dataset.name,
        config.data_dir,
        train_split=config.dataset.train_split,
        test_split=config.dataset.test_split,
        test_fraction=config.dataset.test_fraction,
    )


def build_feed(
    config: ConfigDict,
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
        common = {
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


def build_splits(config: ConfigDict, dataset: Dataset) -> tuple[Source, dict[str, Source]]:
    """Training examples, with label noise, and the splits to evaluate, by name."""
    train, evaluated = dataset.train, {"test": dataset.test}
    noise, count = config.dataset.label_noise, config.validation_examples
    noisy: Source = train
    if noise.matrix or noise.clean_ratio < 1:
        if noise.matrix:
            matrix = read_matrix(noise.matrix, dataset.num_classes)
        else:
            matrix = symmetric_matrix(dataset.num_classes, noise.clean_ratio)
        noisy = NoisySource(train, LabelNoise(matrix, config.seed))
    if not count:
        return noisy, evaluated
    held_out = hold_out_count(train.labels(), count, dataset.num_classes)
    evaluated["validation"] = Subset(train, held_out)
    return Subset(noisy, remaining(len(train), held_out)), evaluated
