"""The interface of all datasets: examples by index, as they are stored.

source[3]            # Example(index=3, name="cifar10/train[3]", image=b"...", label=7, ...)
source.labels()      # int32 [N]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from etils import epath


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One image and its class.

    Attributes:
        index: index of the example in the stored split.
        name: its name in messages.
        path: name of its file, with the folders in the dataset that are known, such as "cat/1.jpg";
            "" if unknown.
        image: an encoded file, see `decoding.py`, or uint8 [H, W, 3].
        label: its class.
        clean_label: its class before label noise.
        upright: whether the rotation in the file's metadata (EXIF) is applied.
    """

    index: int
    name: str
    path: str
    image: bytes | np.ndarray
    label: int
    clean_label: int
    upright: bool = False

    @property
    def file_name(self) -> str:
        """Name of its file without folders; "" if unknown."""
        return PurePath(self.path).name


class Source(Protocol):
    """A split. Reading an example must be thread-safe, and may raise any error."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Example: ...

    def name(self, position: int) -> str:
        """Name of an example in messages, even if it cannot be read."""
        ...

    def labels(self) -> np.ndarray:
        """Classes of all examples, before label noise, int32 [N]; may have to read them all."""
        ...


class ArraySource:
    """A split in memory.

    Args:
        name: name of the split in messages.
        images: uint8 [N, H, W, 3].
        labels: int32 [N].
    """

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray) -> None:
        self._name, self._images, self._labels = name, images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> Example:
        label = int(self._labels[position])
        return Example(position, self.name(position), "", self._images[position], label, label)

    def name(self, position: int) -> str:
        """See `Source`."""
        return f"{self._name}[{position}]"

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels


class FileSource:
    """A split of image files. See `Source`.

    Args:
        files: the images.
        paths: their names in the dataset; see `Example`.
        labels: their classes, int32 [N].
    """

    def __init__(
        self, files: Sequence[epath.Path], paths: Sequence[str], labels: np.ndarray
    ) -> None:
        self._files, self._paths, self._labels = files, paths, labels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> Example:
        file, label = self._files[position], int(self._labels[position])
        data = file.read_bytes()
        path = self._paths[position]
        return Example(position, str(file), path, data, label, label, upright=True)

    def name(self, position: int) -> str:
        """See `Source`."""
        return str(self._files[position])

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels


class Subset:
    """Some examples of a source, in the order of `positions`."""

    def __init__(self, source: Source, positions: Sequence[int] | np.ndarray) -> None:
        self._source, self._positions = source, np.asarray(positions, np.int64)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> Example:
        return self._source[int(self._positions[position])]

    def name(self, position: int) -> str:
        """See `Source`."""
        return self._source.name(int(self._positions[position]))

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._source.labels()[self._positions]


class Relabelled:
    """A source with other numbers for its classes. Labels that are out of range stay so.

    Args:
        source: the source.
        numbers: the number of each class in its place, int32 [classes].
    """

    def __init__(self, source: Source, numbers: np.ndarray) -> None:
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        example = self._source[position]
        label, clean = self._numbered(np.array([example.label, example.clean_label])).tolist()
        return dataclasses.replace(example, label=label, clean_label=clean)

    def name(self, position: int) -> str:
        """See `Source`."""
        return self._source.name(position)

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._numbered(self._source.labels())

    def _numbered(self, labels: np.ndarray) -> np.ndarray:
        known = (labels >= 0) & (labels < len(self._numbers))
        return np.where(known, self._numbers[np.where(known, labels, 0)], labels).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a reader of one's own data has found.

    Attributes:
        class_names: names of the classes, in the order of the labels.
        train: the training examples.
        test: the test examples; None if there is no such part.
        train_paths: names of the training examples, all different, by which some are held out.
        train_names: what these were before, where several may have one name: see
            `dataset.hold_out_by`.
        notes: see `Dataset`.
        files: see `Dataset`.
        containers: see `Dataset`.
        label_sets: see `Dataset`.
    """

    class_names: tuple[str, ...]
    train: Source
    test: Source | None
    train_paths: Sequence[str]
    train_names: Sequence[str]
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    containers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label_sets: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test split of a dataset.

    Attributes:
        name: the name under which it was opened.
        class_names: names of the classes, in the order of the labels.
        train: the training examples.
        test: the test examples.
        image_size: height and width if all images are squares of one size, otherwise None.
        notes: lines for the user: what was left out, and what else one would not expect.
        files: paths of all images by their names, such as "train/cat/1.jpg", which do not change
            when the folder moves; empty where images are not files of their own.
        containers: paths of the files that hold many images each, by their names in the dataset.
        name_hashes: hashes of the training examples' names, uint64 [N], by which examples are held
            out; None: by their positions.
        label_sets: where an image may have several classes: the sets of classes that labels stand
            for, uint8 [labels, classes], 1 for those that an image has; None: a label is a class.
        version: of a TFDS set, the name that opens this version alone, such as "cifar10:3.0.2".
    """

    name: str
    class_names: tuple[str, ...]
    train: Source
    test: Source
    image_size: int | None
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    containers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name_hashes: np.ndarray | None = None
    label_sets: np.ndarray | None = None
    version: str | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_labels(self) -> int:
        """Number of labels: that of the classes, or of their sets."""
        return self.num_classes if self.label_sets is None else len(self.label_sets)

    def summary(self) -> str:
        """What was found, in a line, and the notes, each in another one."""
        shown = self.class_names[:5]
        names = ", ".join(shown) + (", ..." if len(self.class_names) > len(shown) else "")
        found = (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test images of "
            f"{self.num_classes:,} classes: {names}"
        )
        return "\n".join([found, *(f"  {note}" for note in self.notes)])

    def describe(self) -> dict[str, Any]:
        """Class names, sizes and version, as they are written to a run's config.json."""
        version = {} if self.version is None else {"version": self.version}
        return version | {
            "class_names": list(self.class_names),
            "num_train": len(self.train),
            "num_test": len(self.test),
        }


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Description of a dataset, known before it is read.

    Attributes:
        num_classes: number of classes.
        image_size: height and width of the input of networks for it, in pixels; None: unknown.
        num_train: training examples.
        num_test: test examples.
        counts: training examples of each class, without those that are held out; empty where
            `class_weights` does not ask for them.
        label_sets: see `Dataset`.
    """

    num_classes: int
    image_size: int | None
    num_train: int
    num_test: int
    counts: tuple[int, ...] = ()
    label_sets: np.ndarray | None = dataclasses.field(default=None, compare=False)
