"""Opens datasets by name.

dataset = open_dataset("cifar10")          # also any prepared TFDS set, or "folder:PATH" ...
dataset.class_names                        # ("airplane", ...)
dataset.train[3]                           # Example
dataset_spec("cifar10")                    # classes, sizes and image size
"""

import dataclasses
import difflib
from typing import Any

import numpy as np
from absl import logging

from rattn_jax.config.paths import path_of
from rattn_jax.config.schema import (
    BALANCED,
    BY_NAME,
    BY_PATH,
    FOLDER,
    TABLE,
    DatasetConfig,
    RunConfig,
    split_place,
)
from rattn_jax.data import splits
from rattn_jax.data.class_order import CLASSES_FILE, are_numbers, in_order, read_classes
from rattn_jax.data.dataset import Dataset, DatasetSpec, Parts, Subset
from rattn_jax.data.labels import Columns
from rattn_jax.errors import UsageError

# Datasets whose published sizes are known without reading files.
KNOWN = {
    "cifar10": DatasetSpec(10, 32, 50_000, 10_000),
    "cifar100": DatasetSpec(100, 32, 50_000, 10_000),
    "digits": DatasetSpec(10, 8, 1_437, 360),
    "imagenet2012": DatasetSpec(1_000, 224, 1_281_167, 50_000),
}


def dataset_spec(name: str, data_dir: str | None = None, **options: Any) -> DatasetSpec:
    """Classes, example counts and image size of a dataset; reads no data of those in `KNOWN`.

    Args and errors: see `open_dataset`.
    """
    return _describe(DatasetConfig(name, **options), data_dir)


def open_dataset(name: str, data_dir: str | None = None, **options: Any) -> Dataset:
    """Opens a dataset, and prepares it first if possible.

    Args:
        name: "digits", "cifar10", "cifar100"; any image classification set that TFDS has prepared
            in `data_dir`, such as "imagenet2012" or "oxford_flowers102:2.1.1"; or one's own:
            "folder:PATH", "table:PATH" or "shards:PATH", see `image_folder.py`, `image_table.py`
            and `image_shards.py`.
        data_dir: TFDS's folder, a path or URL such as "gs://bucket/tfds"; None for TFDS's default
            ($TFDS_DATA_DIR or ~/tensorflow_datasets). Only TFDS sets use it.
        **options: other keys of the config's section `dataset`, such as test_fraction.

    Returns:
        The dataset; its examples are in the same order every time.

    Raises:
        UsageError: unknown name; data that is missing and cannot be fetched; data that is damaged
            or belongs to another dataset. The message says what to do.
    """
    return _open(DatasetConfig(name, **options), data_dir)


def open_early(config: RunConfig) -> Dataset | None:
    """Opens the dataset of a run, unless what a run needs of it first is known without reading it.

    Then it is None, so that whatever else is wrong is found before a dataset is fetched.
    """
    is_known = config.dataset.name in KNOWN and config.dataset.train_split == "train"
    return None if is_known and config.class_weights != BALANCED else build_dataset(config)


def build_spec(config: RunConfig, opened: Dataset | None = None) -> DatasetSpec:
    """Describes the dataset of a run, without reading it if it is a known one.

    It is opened, too, if the config asks for the number of examples of each class.

    Args:
        config: the run's config.
        opened: its dataset, if it is open already.
    """
    if config.class_weights != BALANCED:
        return KNOWN.get(config.dataset.name) or _spec_of(opened or build_dataset(config))
    dataset = opened or build_dataset(config)
    labels = splits.build_splits(config, dataset)[0].labels()
    counts = np.bincount(labels, minlength=dataset.num_classes)
    spec = KNOWN.get(dataset.name) or _spec_of(dataset)
    return dataclasses.replace(spec, counts=tuple(counts.tolist()))


def build_dataset(config: RunConfig) -> Dataset:
    """Opens the dataset of a run."""
    return _open(config.dataset, config.data_dir)


def _describe(config: DatasetConfig, data_dir: str | None) -> DatasetSpec:
    if config.name in KNOWN:
        return KNOWN[config.name]
    return _spec_of(_open(config, data_dir))


def _spec_of(opened: Dataset) -> DatasetSpec:
    return DatasetSpec(
        opened.num_classes,
        opened.image_size,
        len(opened.train),
        len(opened.test),
        label_sets=opened.label_sets,
    )


# The readers are imported when called, because scikit-learn and tensorflow-datasets take 2 s and
# 1 s to import.
def _open(config: DatasetConfig, data_dir: str | None) -> Dataset:
    kind, path = split_place(config.name)
    dataset = _open_place(config, kind, path) if kind else _open_known(config, data_dir)
    if config.classes:
        return in_order(dataset, config.classes, "dataset.classes")
    if not kind:
        return dataset
    place = path_of(path)
    folder = place if place.is_dir() else place.parent
    if config.classes is None and (stated := read_classes(folder)) is not None:
        return in_order(dataset, stated, str(folder / CLASSES_FILE))
    names = dataset.class_names
    if are_numbers(names) and names != tuple(sorted(names, key=int)):
        note = (
            "classes are in alphabetical order: dataset.classes, or a classes.txt, states another"
        )
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, note))
    return dataset


def _open_known(config: DatasetConfig, data_dir: str | None) -> Dataset:
    """Opens a dataset that has a name."""
    if config.name == "digits":
        from rattn_jax.data import digits

        dataset = digits.open_digits()
    else:
        dataset = _open_tfds(config, data_dir)
    if config.name in KNOWN:
        _compare(dataset, KNOWN[config.name], data_dir)
    return dataset


def _open_place(config: DatasetConfig, kind: str, path: str) -> Dataset:
    """Opens one's own data."""
    from rattn_jax.data import image_folder, image_shards, image_table

    if kind == FOLDER:
        found = image_folder.open_folder(path, all_images=config.all_images)
    else:
        columns = Columns(
            config.image_column, config.label_column, config.split_column, config.label_separator
        )
        read = image_table.open_table if kind == TABLE else image_shards.open_shards
        found = read(path, columns)
    if any(name.lower().endswith(".gif") for name in found.files):
        note = "of an animation the first frame is read"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    names = {BY_PATH: found.train_paths, BY_NAME: found.train_names}.get(config.hold_out_by)
    hashes = None if names is None else splits.hash_names(names)
    return _complete(config, found, hashes=hashes)


def _open_tfds(config: DatasetConfig, data_dir: str | None) -> Dataset:
    from rattn_jax.data import cifar, tfds

    name, test_split = config.name, config.test_split
    if name in cifar.BUILDERS:
        builder = cifar.open_cifar(name, data_dir)
    else:
        close = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {close[0]!r}? " if close and close[0] != name else ""
        hint += "cifar10, cifar100 and digits need no preparation; "
        if name.startswith("imagenet2012"):
            hint = "`rattn prepare imagenet` writes it from ILSVRC's archives; "
        builder = tfds.open_prepared(name, data_dir, hint)
    names = tfds.class_names(builder)
    train = tfds.TfdsSource(builder, config.train_split)
    if test_split is None:
        known = [split for split in ("test", "validation") if split != config.train_split]
        test_split = next((split for split in known if split in builder.info.splits), None)
    elif test_split == config.train_split:
        raise UsageError(
            f"dataset.test_split={test_split!r} is dataset.train_split as well: test images must "
            "not be trained on; name another split"
        )
    test = tfds.TfdsSource(builder, test_split) if test_split else None
    found = Parts(names, train, test, train_paths=(), train_names=())
    complete = _complete(config, found, image_size=tfds.image_size(builder))
    return dataclasses.replace(complete, version=tfds.version(builder))


def _complete(
    config: DatasetConfig,
    found: Parts,
    image_size: int | None = None,
    hashes: np.ndarray | None = None,
) -> Dataset:
    """Creates the dataset; without a test split, holds out a part of the training examples."""
    train, test = found.train, found.test
    if test is None:
        labels, num_classes = splits.strata(train, len(found.class_names), found.label_sets)
        held_out = splits.hold_out_fraction(labels, config.test_fraction, num_classes, hashes)
        rest = splits.remaining(len(train), held_out)
        train, test = Subset(train, rest), Subset(train, held_out)
        hashes = None if hashes is None else hashes[rest]
    if not len(train) or not len(test):
        raise UsageError(
            f"dataset.name={config.name!r} has {len(train)} training and {len(test)} test images: "
            "must be at least one of each; add images"
        )
    return Dataset(
        config.name,
        found.class_names,
        train,
        test,
        image_size,
        notes=found.notes,
        files=found.files,
        containers=found.containers,
        name_hashes=hashes,
        label_sets=found.label_sets,
    )


def _compare(dataset: Dataset, spec: DatasetSpec, data_dir: str | None) -> None:
    """Checks the number of classes of a known dataset, and warns if it is a subset."""
    if dataset.num_classes != spec.num_classes:
        raise UsageError(
            f"{dataset.name} in data_dir {data_dir!r} has {dataset.num_classes} classes: must be "
            f"{spec.num_classes}; choose another data_dir"
        )
    for split_name, split, published in (
        ("train", dataset.train, spec.num_train),
        ("test", dataset.test, spec.num_test),
    ):
        if len(split) != published:
            logging.warning(
                "%s: the %s split has %d examples, the published dataset %d",
                dataset.name,
                split_name,
                len(split),
                published,
            )
