"""Reads your own images from a folder with one folder per class.

PATH/train/cat/1.jpg          or, with a part of each class held out:
PATH/train/dog/2.png              PATH/cat/1.jpg
PATH/test/cat/3.webp              PATH/dog/2.png
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from rattn_jax.config.schema import FOLDER
from rattn_jax.data.dataset import Example
from rattn_jax.errors import UsageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})  # suffixes of image files


class FolderSource:
    """Files and their classes. See `Source`.

    Args:
        files: the images.
        labels: their classes, int32 [N].
        root: the folder of the class folders.
    """

    def __init__(self, files: list[epath.Path], labels: np.ndarray, root: epath.Path) -> None:
        self._files, self._labels, self._root = files, labels, root

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> Example:
        file, label = self._files[position], int(self._labels[position])
        data = file.read_bytes()
        return Example(position, str(file), file.name, data, label, label, upright=True)

    def name(self, position: int) -> str:
        """See `Source`."""
        return str(self._files[position])

    def paths(self) -> dict[str, str]:
        """Paths of all images by their names below `root`, such as "cat/1.jpg"."""
        start = len(str(self._root)) + 1
        return {path[start:]: path for path in map(str, self._files)}

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels


class Folder(NamedTuple):
    """The contents of a folder; `test` is None without a folder of test images."""

    class_names: tuple[str, ...]
    train: FolderSource
    test: FolderSource | None


def open_folder(path: epath.PathLike) -> Folder:
    """Lists the images of a folder, in alphabetical order so that their indices are stable.

    Args:
        path: the folder, local or a URL.

    Raises:
        UsageError: no such folder, no classes, a class without images, or classes in the test part
            that the training part does not have.
    """
    root = epath.Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(
            f"dataset.name='{FOLDER}{path}': there is no such folder; correct the path"
        )
    train_root = root / "train" if (root / "train").is_dir() else root
    test_root = next((root / n for n in ("test", "val", "validation") if (root / n).is_dir()), None)
    if test_root is not None and train_root == root:
        raise UsageError(
            f"{root} has a folder {test_root.name} but none called train: add it, or keep class "
            "folders only"
        )
    names = _class_folders(train_root)
    if len(names) < 2:
        raise UsageError(
            f"{train_root} has {len(names)} class folders: must be at least 2; make one for each "
            "class, with its images in it"
        )
    if test_root is None:
        return Folder(names, _list_images(train_root, names), None)
    unknown = sorted(set(_class_folders(test_root)) - set(names))
    if unknown:
        raise UsageError(
            f"{test_root} has the class {unknown[0]!r}, which {train_root} does not have: move it "
            "away, or add training images of it"
        )
    return Folder(names, _list_images(train_root, names), _list_images(test_root, names))


def _class_folders(root: epath.Path) -> tuple[str, ...]:
    return tuple(
        sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _list_images(root: epath.Path, class_names: tuple[str, ...]) -> FolderSource:
    files: list[epath.Path] = []
    counts = []
    for name in class_names:
        folder = root / name
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        images = [p for p in entries if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        if not images:
            raise UsageError(
                f"class folder {folder} has no image: must hold at least one "
                f"{', '.join(sorted(SUFFIXES))} file; add some, or remove the folder"
            )
        files += images
        counts.append(len(images))
    return FolderSource(files, np.repeat(np.arange(len(counts), dtype=np.int32), counts), root)


def find_images(paths: Sequence[str]) -> list[epath.Path]:
    """Lists files: those given by name, and all images in given folders, recursively.

    Raises:
        UsageError: there is no such file, or no image in a folder.
    """
    found: list[epath.Path] = []
    for path in map(epath.Path, paths):
        if path.is_dir():
            images = list(_images_below(path))
            if not images:
                raise UsageError(
                    f"folder {path} has no image: must hold {', '.join(sorted(SUFFIXES))} files; "
                    "name files of other kinds one by one"
                )
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder; correct the path")
    return found


def _images_below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _images_below(entry)
        elif entry.suffix.lower() in SUFFIXES and not entry.name.startswith("."):
            yield entry
