"""Small datasets that fit in memory, by name.

dataset = load_dataset("cifar10", data_dir=None)
dataset.train.images        # uint8 [50000, 32, 32, 3]
dataset_spec("cifar10")     # classes, sizes and image size, without reading anything
"""

import dataclasses
import difflib
from collections.abc import Callable

import numpy as np
from absl import logging

from rattn_jax.errors import UsageError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order.

    Attributes:
        images: uint8 [N, H, W, 3], RGB, 0..255.
        labels: int32 [N].

    Raises:
        UsageError: a shape or dtype other than these, different lengths, or no example at all.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}: must be uint8 [N, H, W, 3]; "
                "convert them to 8-bit RGB"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise UsageError(
                f"labels are {labels.dtype} {list(labels.shape)}: must be int32 [N]; "
                "give one class index an image"
            )
        if len(images) != len(labels) or len(labels) == 0:
            raise UsageError(
                f"a split has {len(images)} images and {len(labels)} labels: must be as many of "
                "each, and at least one; check how it was built"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split over the same classes.

    Attributes:
        name: a key of `DATASETS`, or any other for one's own data.
        class_names: one name a class, in the order of the labels.
        train: the examples to learn from.
        test: the held-out examples.

    Raises:
        UsageError: a label outside [0, num_classes). Training would not notice by itself: the
            loss becomes NaN above and silently takes the last class for -1.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        for split_name, split in (("train", self.train), ("test", self.test)):
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise UsageError(
                    f"{self.name}: labels of {split_name} span {low}..{high}: must lie in "
                    f"0..{self.num_classes - 1}; correct the labels or the {self.num_classes} "
                    "class names"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before it is read.

    Attributes:
        num_classes: number of classes.
        image_size: height and width in pixels.
        num_train: training examples in the published dataset.
        num_test: test examples in the published dataset.
        load: reads it, given `data_dir`.
    """

    num_classes: int
    image_size: int
    num_train: int
    num_test: int
    load: Callable[[str | None], Dataset]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of one image."""
        return (self.image_size, self.image_size, 3)


# The loaders are imported when called: scikit-learn and tensorflow-datasets take 2 s and 1 s to
# import, which a config check or `--help` should not pay.
def _load_digits(data_dir: str | None) -> Dataset:
    del data_dir  # bundled with scikit-learn
    from rattn_jax.data import digits

    return digits.load_digits()


def _load_cifar10(data_dir: str | None) -> Dataset:
    from rattn_jax.data import cifar

    return cifar.load_cifar("cifar10", data_dir)


def _load_cifar100(data_dir: str | None) -> Dataset:
    from rattn_jax.data import cifar

    return cifar.load_cifar("cifar100", data_dir)


DATASETS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(10, 32, 50_000, 10_000, _load_cifar10),
    "cifar100": DatasetSpec(100, 32, 50_000, 10_000, _load_cifar100),
    "digits": DatasetSpec(10, 8, 1_437, 360, _load_digits),
}


def dataset_spec(name: str) -> DatasetSpec:
    """Classes, example counts and image size of the dataset called `name`; reads no data.

    Raises:
        UsageError: unknown name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"dataset {name!r} is unknown: {hint}choose one of {', '.join(sorted(DATASETS))}"
        )
    return DATASETS[name]


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Reads a whole dataset into memory, preparing it first where needed.

    Args:
        name: a key of `DATASETS`.
        data_dir: TFDS's folder, a path or URL such as "gs://bucket/tfds"; None for TFDS's default
            ($TFDS_DATA_DIR or ~/tensorflow_datasets). Datasets that come with a package ignore it.

    Returns:
        The dataset, in the same order every time.

    Raises:
        UsageError: unknown name; data that is missing and cannot be fetched; data that is damaged
            or is not what the name says. The message tells what to do.
    """
    spec = dataset_spec(name)
    dataset = spec.load(data_dir)
    for split_name, split, published in (
        ("train", dataset.train, spec.num_train),
        ("test", dataset.test, spec.num_test),
    ):
        if dataset.num_classes != spec.num_classes or split.images.shape[1:] != spec.image_shape:
            raise UsageError(
                f"{name} in data_dir {data_dir!r} has {dataset.num_classes} classes and "
                f"{split_name} images of {split.images.shape[1:]}: must be {spec.num_classes} and "
                f"{spec.image_shape}; choose another data_dir"
            )
        if len(split) != published:
            # A subset is legitimate in a trial, but its errors are not comparable.
            logging.warning(
                "%s: the %s split has %d examples, the published dataset %d",
                name,
                split_name,
                len(split),
                published,
            )
    return dataset
