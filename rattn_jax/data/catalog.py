"""Opens datasets by name.

dataset = open_dataset("cifar10")          # also any prepared TFDS set, or "folder:PATH"
dataset.class_names                        # ("airplane", ...)
dataset.train[3]                           # Example
dataset_spec("cifar10")                    # classes, sizes and image size
"""

import dataclasses
import difflib

import numpy as np
from absl import logging

from rattn_jax.config.schema import FOLDER, RunConfig
from rattn_jax.data import splits
from rattn_jax.data.dataset import Dataset, DatasetSpec, Source, Subset
from rattn_jax.errors import UsageError

# Datasets whose published sizes are known without reading files.
KNOWN = {
    "cifar10": DatasetSpec(10, 32, 50_000, 10_000),
    "cifar100": DatasetSpec(100, 32, 50_000, 10_000),
    "digits": DatasetSpec(10, 8, 1_437, 360),
    "imagenet2012": DatasetSpec(1_000, 224, 1_281_167, 50_000),
}


def dataset_spec(
    name: str,
    data_dir: str | None = None,
    *,
    test_fraction: float = 0.1,
    all_images: bool = True,
    hold_out_by_name: bool = True,
) -> DatasetSpec:
    """Classes, example counts and image size of a dataset; reads no data of those in `KNOWN`.

    Args:
        name: see `open_dataset`.
        data_dir: see `open_dataset`.
        test_fraction: see `open_dataset`.
        all_images: see `open_dataset`.
        hold_out_by_name: see `open_dataset`.

    Raises:
        UsageError: see `open_dataset`.
    """
    if name in KNOWN:
        return KNOWN[name]
    opened = open_dataset(
        name,
        data_dir,
        test_fraction=test_fraction,
        all_images=all_images,
        hold_out_by_name=hold_out_by_name,
    )
    return DatasetSpec(opened.num_classes, opened.image_size, len(opened.train), len(opened.test))


def open_dataset(
    name: str,
    data_dir: str | None = None,
    *,
    train_split: str = "train",
    test_split: str | None = None,
    test_fraction: float = 0.1,
    all_images: bool = True,
    hold_out_by_name: bool = True,
) -> Dataset:
    """Opens a dataset, and prepares it first if possible.

    Args:
        name: "digits", "cifar10", "cifar100"; any image classification set that TFDS has prepared
            in `data_dir`, such as "imagenet2012" or "oxford_flowers102:2.1.1"; or "folder:PATH",
            see `image_folder.py`.
        data_dir: TFDS's folder, a path or URL such as "gs://bucket/tfds"; None for TFDS's default
            ($TFDS_DATA_DIR or ~/tensorflow_datasets). Only TFDS sets use it.
        train_split: training split of a TFDS set.
        test_split: test split of a TFDS set; None: "test" if it exists, otherwise "validation".
        test_fraction: fraction of each class that is held out if there is no test split.
        all_images: of a folder, see `image_folder.py`.
        hold_out_by_name: whether examples of a folder are held out by the names of their files, see
            `splits.hold_out_fraction`; otherwise, and of other sets, at random.

    Returns:
        The dataset; its examples are in the same order every time.

    Raises:
        UsageError: unknown name; data that is missing and cannot be fetched; data that is damaged
            or belongs to another dataset. The message says what to do.
    """
    if name == "digits":
        from rattn_jax.data import digits

        dataset = digits.open_digits()
    elif name.startswith(FOLDER):
        dataset = _open_folder(name, test_fraction, all_images, hold_out_by_name)
    else:
        dataset = _open_tfds(name, data_dir, train_split, test_split, test_fraction)
    if name in KNOWN:
        _compare(dataset, KNOWN[name], data_dir)
    return dataset


# The readers are imported when called, because scikit-learn and tensorflow-datasets take 2 s and
# 1 s to import.
def _open_folder(
    name: str, test_fraction: float, all_images: bool, hold_out_by_name: bool
) -> Dataset:
    from rattn_jax.data import image_folder

    path = name.removeprefix(FOLDER)
    class_names, train, test, notes = image_folder.open_folder(path, all_images=all_images)
    parts = {"train": train.paths(), "test": test.paths() if test else {}}
    files = {f"{part}/{file}": path for part in parts for file, path in parts[part].items()}
    names_in_class = (file.partition("/")[2] for file in parts["train"])
    hashes = splits.hash_names(names_in_class) if hold_out_by_name else None
    dataset = _complete(name, class_names, train, test, None, test_fraction, hashes)
    return dataclasses.replace(dataset, notes=notes, files=files)


def _open_tfds(
    name: str, data_dir: str | None, train_split: str, test_split: str | None, test_fraction: float
) -> Dataset:
    from rattn_jax.data import cifar, tfds

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
    train = tfds.TfdsSource(builder, train_split)
    if test_split is None:
        known = ("test", "validation")
        test_split = next((split for split in known if split in builder.info.splits), None)
    test = tfds.TfdsSource(builder, test_split) if test_split else None
    return _complete(name, names, train, test, tfds.image_size(builder), test_fraction)


def _complete(
    name: str,
    class_names: tuple[str, ...],
    train: Source,
    test: Source | None,
    image_size: int | None,
    test_fraction: float,
    hashes: np.ndarray | None = None,
) -> Dataset:
    """Creates the dataset; without a test split, holds out a part of the training examples."""
    if test is None:
        labels, num_classes = train.labels(), len(class_names)
        held_out = splits.hold_out_fraction(labels, test_fraction, num_classes, hashes)
        rest = splits.remaining(len(train), held_out)
        train, test = Subset(train, rest), Subset(train, held_out)
        hashes = None if hashes is None else hashes[rest]
    if not len(train) or not len(test):
        raise UsageError(
            f"dataset.name={name!r} has {len(train)} training and {len(test)} test images: must be "
            "at least one of each; add images"
        )
    return Dataset(name, class_names, train, test, image_size, name_hashes=hashes)


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


def build_spec(config: RunConfig) -> DatasetSpec:
    """Describes the dataset of a run without reading it, if it is a known one."""
    dataset = config.dataset
    return dataset_spec(
        dataset.name,
        config.data_dir,
        test_fraction=dataset.test_fraction,
        all_images=dataset.all_images,
        hold_out_by_name=dataset.hold_out_by_name,
    )


def build_dataset(config: RunConfig) -> Dataset:
    """Opens the dataset of a run."""
    return open_dataset(
        config.dataset.name,
        config.data_dir,
        train_split=config.dataset.train_split,
        test_split=config.dataset.test_split,
        test_fraction=config.dataset.test_fraction,
        all_images=config.dataset.all_images,
        hold_out_by_name=config.dataset.hold_out_by_name,
    )
