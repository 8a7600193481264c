"""Reads your own images from a folder with one folder per class.

PATH/train/cat/1.jpg          or, with a part of each class held out:
PATH/train/dog/day1/2.png         PATH/cat/1.jpg
PATH/test/cat/3.webp              PATH/dog/day1/2.png

`image_layout.py` finds the folders of the parts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.config.schema import FOLDER
from rattn_jax.data.dataset import FileSource, Parts
from rattn_jax.data.image_files import LeftOut, entries_of, images_below, no_image
from rattn_jax.data.image_layout import (
    Classes,
    count_below,
    find_layout,
    has_folders,
    layout_before,
    list_names,
    was_seen,
)
from rattn_jax.errors import UsageError

# What was read before there was `dataset.all_images`.
_SUFFIXES_BEFORE = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class _Part(NamedTuple):
    """The images of a part.

    Attributes:
        source: the images.
        names: their names in the part, such as "cat/1.jpg", which do not change when it moves.
        paths: where they lie.
        num_below: number of them that are in folders below those of the classes.
    """

    source: FileSource
    names: Sequence[str]
    paths: Sequence[str]
    num_below: int


def open_folder(path: epath.PathLike, *, all_images: bool = True) -> Parts:
    """Lists the images of a folder, in alphabetical order so that their indices are stable.

    Names of classes that differ only in Unicode's normal form are one name.

    Args:
        path: the folder, local or a URL.
        all_images: read the suffixes of `image_files.py`, in folders below those of the classes,
            too. False: as before there was this choice.

    Raises:
        UsageError: no such folder, a layout that can be meant in several ways, no classes, a class
            without training images, or classes that only the test part has.
    """
    root = path_of(path)
    if not root.is_dir():
        raise UsageError(
            f"dataset.name='{FOLDER}{path}': there is no such folder; correct the path"
        )
    left_out = LeftOut()
    layout = find_layout(root, left_out) if all_images else layout_before(root)
    read = partial(images_below, left_out=left_out) if all_images else _images_before
    names = tuple(sorted(layout.train))
    if len(names) < 2:
        folders = [folder for found in layout.train.values() for folder in found]
        inner = next((folder for folder in folders if has_folders(folder)), None)
        hint = f", or is {inner} meant?" if inner else ""
        raise UsageError(
            f"{layout.root} has {len(names)} class folders: must be at least 2; make one for each "
            f"class, with its images in it{hint}"
        )
    tested: Classes = layout.test or {}
    if unknown := sorted(tested.keys() - layout.train.keys()):
        raise UsageError(
            f"{tested[unknown[0]][0].parent} has the class {unknown[0]!r}, which "
            f"{layout.root} does not have: move it away, or add training images of it"
        )
    train = _list_images(layout.train, names, read)
    if lacking := _without_images(train, names):
        raise UsageError(no_image("class folder", layout.train[lacking[0]][0], left_out))
    test = None if layout.test is None else _list_images(layout.test, names, read)
    notes = [str(left_out)] if left_out else []
    notes += layout.notes
    if below := train.num_below + (test.num_below if test else 0):
        notes.append(f"{below:,} of them are in folders below those of the classes")
    if test is not None and (lacking := _without_images(test, names)):
        notes.append(f"{len(lacking)} of the classes have no test images: {list_names(lacking)}")
    return Parts(
        names,
        train.source,
        test.source if test else None,
        train_paths=train.names,
        train_names=[name.partition("/")[2] for name in train.names],
        notes=tuple(notes),
        files=_files("train", train) | (_files("test", test) if test else {}),
    )


def _list_images(
    classes: Classes, names: Sequence[str], read: Callable[[epath.Path], list[epath.Path]]
) -> _Part:
    """The images of a part, class after class."""
    files: list[epath.Path] = []
    image_names: list[str] = []
    counts, num_below = [], 0
    for name in names:
        folders = classes.get(name, ())
        counts.append(0)
        for folder in folders:
            images = read(folder)
            start = len(str(folder)) + 1
            place = name if len(folders) == 1 else folder.name
            image_names += [f"{place}/{str(path)[start:]}" for path in images]
            num_below += count_below(folder, images)
            counts[-1] += len(images)
            files += images
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return _Part(FileSource(files, image_names, labels), image_names, [*map(str, files)], num_below)


def _files(name: str, part: _Part) -> dict[str, str]:
    """Paths of the images of a part by their names in the dataset."""
    return {f"{name}/{key}": path for key, path in zip(part.names, part.paths, strict=True)}


def _without_images(part: _Part, names: Sequence[str]) -> list[str]:
    """Names of the classes of which a part has no image."""
    counts = np.bincount(part.source.labels(), minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if not count]


def _images_before(folder: epath.Path) -> list[epath.Path]:
    """The images of a class as they were listed before there was `dataset.all_images`."""
    entries = entries_of(folder)
    return [p for p in entries if p.suffix.lower() in _SUFFIXES_BEFORE and was_seen(p)]
