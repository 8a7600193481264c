"""Any prepared image classification set of tensorflow-datasets (TFDS), read without TensorFlow.

source = TfdsSource(open_prepared("oxford_flowers102", data_dir), "train")
source[3]            # Example, its image still encoded

TFDS reads folders in the format array_record without TensorFlow, whoever has prepared them.
"""

import glob
import textwrap
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tensorflow_datasets.core import read_only_builder

from rattn_jax.config.paths import path_of
from rattn_jax.data.dataset import Example
from rattn_jax.errors import UsageError

FILE_FORMAT = "array_record"
_CHUNK = 1_000  # records read at a time where all are


def tfds_root(data_dir: str | None) -> epath.Path:
    """TFDS's folder: `data_dir`, or TFDS's default ($TFDS_DATA_DIR or ~/tensorflow_datasets)."""
    root = path_of(data_dir or tfds.core.constants.DATA_DIR)
    # TFDS expands a `~` at its beginning once more.
    return root if "://" in str(root) else root.absolute()


def open_prepared(name: str, data_dir: str | None, hint: str = "") -> Any:
    """A builder for reading.

    Args:
        name: as TFDS writes it: "name", "name/config", "name:1.2.3"; without a version the newest
            one that is prepared.
        data_dir: TFDS's folder, a path or URL; None for TFDS's default.
        hint: what else to say if it is not there.

    Raises:
        UsageError: not prepared, prepared in another format, or damaged.
    """
    root = tfds_root(data_dir)
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=root)
    except Exception as error:  # TFDS raises its own, those of the file system, and more
        base = name.split("/")[0].split(":")[0]
        here = epath.Path(glob.escape(str(root)))  # epath takes its own characters for a pattern
        files = (f for depth in ("*", "*/*") for f in here.glob(f"{base}/{depth}/features.json"))
        there = sorted(str(file.parent.relative_to(root)) for file in files)
        there = [name for name in there if "incomplete." not in name]
        found = f"only {', '.join(there)} is" if there else "nothing under this name is"
        raise UsageError(
            f"dataset.name={name!r} is not prepared in data_dir {root}: {found}; {hint}prepare it "
            f"with tfds build {name} --file_format={FILE_FORMAT} (after pip install "
            f"-e '.[prepare]'), or choose another data_dir ({one_line(error)})"
        ) from None
    return check_prepared(builder)


def check_prepared(builder: Any) -> Any:
    """The builder, or UsageError if its folder cannot be read."""
    folder = epath.Path(builder.data_dir)
    try:
        if not (folder / tfds.core.constants.DATASET_INFO_FILENAME).exists():
            raise FileNotFoundError(tfds.core.constants.DATASET_INFO_FILENAME)
        formats = sorted(known.value for known in builder.info.available_file_formats())
    except Exception as error:  # TFDS, protobuf and the file system have each their own
        raise damaged(folder, error) from error
    if FILE_FORMAT not in formats:
        raise UsageError(
            f"{folder} is prepared as {', '.join(formats)}: must be {FILE_FORMAT}; move it "
            "away or choose another data_dir, and run again"
        )
    return builder


class TfdsSource:
    """A split of a prepared set. See `Source`.

    Args:
        builder: what `open_prepared` gives.
        split: "train", "test", "validation", or another that the set has.

    Raises:
        UsageError: no such split, no class labels, or files that cannot be read.
    """

    def __init__(self, builder: Any, split: str) -> None:
        self._folder = folder = epath.Path(builder.data_dir)
        self._name = f"{builder.name}/{split}"
        self._image_key, self._label_key = _feature_keys(builder)
        if not builder.info.splits:
            raise damaged(folder, ValueError("it has no splits"))
        if split not in builder.info.splits:
            raise UsageError(
                f"{folder} has no split {split!r}: choose one of "
                f"{', '.join(sorted(builder.info.splits))} for dataset.train_split and test_split"
            )
        try:
            decoders = {self._image_key: tfds.decode.SkipDecoding()}
            self._records = builder.as_data_source(
                split, decoders=decoders, file_format=FILE_FORMAT
            )
            self._num_examples = len(self._records)
            if self._num_examples:
                self._probe()
        except Exception as error:  # TFDS, array_record and the file system have each their own
            raise damaged(folder, error) from error
        if not self._num_examples:
            raise damaged(folder, ValueError(f"the split {split} is empty"))

    def _probe(self) -> None:
        """Reads an example: TFDS opens its files when they are needed. One may be bad, not both."""
        try:
            self._records[0]
        except Exception:  # as above
            self._records[self._num_examples - 1]

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < self._num_examples:
            raise IndexError(position)  # which is what ends a loop over the source
        record = self._records[position]
        file = record.get("file_name", b"")
        file_name = file.decode() if isinstance(file, bytes) else ""
        name = f"{self.name(position)} {file_name}".rstrip()
        label = int(record[self._label_key])
        return Example(position, name, file_name, record[self._image_key], label, label)

    def name(self, position: int) -> str:
        """See `Source`."""
        return f"{self._name}[{position}]"

    def labels(self) -> np.ndarray:
        """See `Source`: reads the whole split."""
        if self._num_examples > 100_000:
            logging.warning("%s: reading all records for their labels", self._name)
        labels: list[int] = []
        try:
            for start in range(0, self._num_examples, _CHUNK):
                chunk = range(start, min(start + _CHUNK, self._num_examples))
                labels += (record[self._label_key] for record in self._records.__getitems__(chunk))
        except Exception as error:  # as above
            raise damaged(self._folder, error) from error
        return np.array(labels, np.int32)


def class_names(builder: Any) -> tuple[str, ...]:
    """One name a class, in the order of the labels; numbers where the set has no names."""
    label = builder.info.features[_feature_keys(builder)[1]]
    return tuple(label.names)


def version(builder: Any) -> str:
    """The name that opens this version alone, such as "cifar10:3.0.2"."""
    name, _, number = builder.info.full_name.rpartition("/")
    return f"{name}:{number}"


def image_size(builder: Any) -> int | None:
    """Height and width, where all images are squares of one size."""
    height, width = builder.info.features[_feature_keys(builder)[0]].shape[:2]
    return height if height == width else None


def _feature_keys(builder: Any) -> tuple[str, str]:
    """Names of the image and of the class."""
    features = builder.info.features

    def keys(kind: type) -> list[str]:
        return [key for key, feature in features.items() if isinstance(feature, kind)]

    images, labels = keys(tfds.features.Image), keys(tfds.features.ClassLabel)
    supervised = builder.info.supervised_keys or ()
    image = next((key for key in supervised if key in images), images[0] if images else None)
    label = next((key for key in supervised if key in labels), labels[0] if labels else None)
    if image is None or label is None:
        raise UsageError(
            f"{builder.data_dir} has the features {', '.join(sorted(features))}: needs an image "
            "and a class label; choose a dataset for image classification"
        )
    return image, label


def damaged(folder: epath.Path, error: Exception) -> UsageError:
    """What to say of a prepared folder that cannot be read."""
    return UsageError(
        f"cannot read the prepared folder {folder} ({one_line(error)}): check its permissions, or "
        "remove it and run again"
    )


def one_line(error: Exception) -> str:
    """Kind and text of an error, shortened to a line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 120)
