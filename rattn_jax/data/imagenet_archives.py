"""Reads the images of ILSVRC 2012 from the archives as they are distributed, without unpacking.

content = read_archives("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
content.splits["train"][3]             # Example, its image still encoded

The first is a tar file of a tar file for each class, n01440764.tar; the second a tar file of images
whose labels are the list of tensorflow-datasets.
"""

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.data.contents import digest
from rattn_jax.data.dataset import Example
from rattn_jax.data.prepare import Content
from rattn_jax.errors import UsageError

NUM_IMAGES = {"train": 1_281_167, "validation": 50_000}
# MD5 of the published files (pytorch/vision, commit 0476162, torchvision/datasets/imagenet.py).
MD5 = {
    "train": "1d675b47d978889d74fa0da5fadfb00e",
    "validation": "29b22e2961454d5413ddabcf34fc5622",
}
_FILES = "datasets/imagenet2012"  # of tensorflow-datasets
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


class TarSource:
    """Files in a tar file, which is read at their offsets. See `Source`.

    Args:
        archive: the tar file, local.
        file_names: names of the files.
        offsets: where their bytes begin in the archive, int64 [N].
        sizes: their numbers of bytes, int64 [N].
        labels: their classes, int32 [N].

    Attributes:
        sizes: see above.
    """

    def __init__(
        self,
        archive: epath.Path,
        file_names: list[str],
        offsets: np.ndarray,
        sizes: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        self._archive, self._file_names, self._labels = archive, file_names, labels
        self._offsets, self.sizes = offsets, sizes

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> Example:
        with open(self._archive, "rb") as archive:
            archive.seek(self._offsets[position])
            data = archive.read(self.sizes[position])
        file_name, label = self._file_names[position], int(self._labels[position])
        return Example(position, self.name(position), file_name, data, label, label)

    def name(self, position: int) -> str:
        """See `Source`."""
        return f"{self._archive}/{self._file_names[position]}"

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels


def class_names() -> tuple[str, ...]:
    """WordNet numbers of the 1,000 classes, in the order of the labels."""
    return tuple(tfds.core.tfds_path(f"{_FILES}/labels.txt").read_text().split())


def read_archives(
    train: epath.PathLike,
    validation: epath.PathLike,
    shorter_side: int | None = None,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], None] = lambda text: None,
) -> Content:
    """The images of both archives, under the name and version of TFDS.

    Args:
        train: ILSVRC2012_img_train.tar.
        validation: ILSVRC2012_img_val.tar.
        shorter_side: see `Content`.
        say: called with a line for an archive that has another number of images than published.
        progress: called with how far it is.

    Raises:
        UsageError: a file cannot be read, is damaged, or is another archive.
    """
    splits = {"train": open_train(train, progress), "validation": open_validation(validation)}
    for split, source in splits.items():
        if len(source) != NUM_IMAGES[split]:
            say(f"{split}: {len(source):,} images, and ILSVRC 2012 has {NUM_IMAGES[split]:,}")
    scaled = f" Scaled to a shorter side of {shorter_side} pixels." if shorter_side else ""
    return Content(
        name="imagenet2012",
        version="5.1.0",
        class_names=class_names(),
        splits=splits,
        shorter_side=shorter_side,
        only_jpeg=True,
        description=f"ILSVRC 2012, prepared by rattn_jax.{scaled}",
        contents=digest({split: source.sizes.tolist() for split, source in splits.items()}),
    )


def open_train(path: epath.PathLike, say: Callable[[str], None] = lambda text: None) -> TarSource:
    """Lists the training images.

    Args:
        path: ILSVRC2012_img_train.tar.
        say: called with the progress.

    Raises:
        UsageError: the file cannot be read, is damaged, or is another archive.
    """
    labels = {name: label for label, name in enumerate(class_names())}

    def found(archive: epath.Path) -> Iterator[tuple[tarfile.TarInfo, int, int]]:
        with tarfile.open(archive, "r:") as outer:
            for number, member in enumerate(outer, start=1):
                label = labels.get(member.name.removesuffix(".tar"))
                if label is None or not member.isfile():
                    raise _other_archive(archive, member, "n01440764.tar, ..., n15075141.tar")
                say(f"{member.name}, {number} of {len(labels):,}")
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for image in inner:
                        if image.isfile():
                            yield image, member.offset_data, label

    return _list(path_of(path), found)


def open_validation(path: epath.PathLike) -> TarSource:
    """Lists the validation images.

    Args:
        path: ILSVRC2012_img_val.tar.

    Raises:
        UsageError: the file cannot be read, is damaged, or is another archive.
    """
    labels = {name: label for label, name in enumerate(class_names())}
    classes = tfds.core.tfds_path(f"{_FILES}/validation_labels.txt").read_text().split()

    def found(archive: epath.Path) -> Iterator[tuple[tarfile.TarInfo, int, int]]:
        with tarfile.open(archive, "r:") as members:
            for image in members:
                match = _VALIDATION_NAME.fullmatch(image.name)
                if match is None or not 0 < int(match[1]) <= len(classes):
                    raise _other_archive(
                        archive, image, "ILSVRC2012_val_00000001.JPEG, ..., ILSVRC2012_val_00050000"
                    )
                yield image, 0, labels[classes[int(match[1]) - 1]]

    return _list(path_of(path), found)


def check_md5(path: epath.PathLike, split: str) -> None:
    """Reads the whole file, and compares it with the published one.

    Raises:
        UsageError: it differs, or cannot be read.
    """
    try:
        with path_of(path).open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): correct --{split}") from error
    if digest != MD5[split]:
        raise UsageError(
            f"{path} has the MD5 {digest}, and the published file {MD5[split]}: download it again"
        )


def _list(
    archive: epath.Path,
    find: Callable[[epath.Path], Iterator[tuple[tarfile.TarInfo, int, int]]],
) -> TarSource:
    """Lists the images that `find` yields: their headers, what to add to offsets, and labels."""
    names, offsets, sizes, labels = [], [], [], []
    try:
        length = archive.stat().length
        for image, start, label in find(archive):
            names.append(image.name)
            offsets.append(start + image.offset_data)
            sizes.append(image.size)
            labels.append(label)
            if offsets[-1] + image.size > length:
                raise tarfile.ReadError(f"it ends within {image.name}")
    except tarfile.TarError as error:
        raise UsageError(
            f"{archive} is damaged, cut off or no tar file ({error}): download it again"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{archive} cannot be read ({error.strerror}): correct the path"
        ) from error
    if not names:
        raise UsageError(f"{archive} has no images: download it again")
    return TarSource(
        archive,
        names,
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        np.array(labels, np.int32),
    )


def _other_archive(archive: epath.Path, member: tarfile.TarInfo, expected: str) -> UsageError:
    return UsageError(
        f"{archive} has {member.name!r}, and must have {expected}: give the archive as it was "
        "downloaded"
    )
