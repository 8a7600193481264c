"""Finds the folders of the parts and of the classes in a folder of images.

layout = find_layout(epath.Path("photos"), LeftOut())
layout.train["cat"]      # [photos/Training/cat]

A layout that can be meant in several ways is refused.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from rattn_jax.data.class_order import CLASSES_FILE
from rattn_jax.data.image_files import (
    LeftOut,
    entries_of,
    folders_among,
    images_below,
    is_hidden,
    is_image,
    leads_up,
    real_path,
)
from rattn_jax.errors import UsageError

TRAIN, TEST, VALIDATION = "train", "test", "validation"
# Usual names of the parts, in any case, as in "Training", "test_set" and "val-images".
_WORDS = {
    TRAIN: {"train", "training", "trn"},
    TEST: {"test", "testing", "tst"},
    VALIDATION: {"val", "valid", "validation", "dev", "development", "eval", "evaluation"},
}
_ENDINGS = r"(?:[\W_]*(?:set|data|images?|imgs?|pictures|photos|split|folder))?"
_NAMES = {
    part: re.compile(f"(?:{'|'.join(words)}){_ENDINGS}", re.IGNORECASE)
    for part, words in _WORDS.items()
}
_MAX_NAMES = 5  # that a line lists

Classes = Mapping[str, Sequence[epath.Path]]


class Layout(NamedTuple):
    """Where the images of a dataset are.

    Attributes:
        root: folder of the classes of the training part.
        train: folders of the training images, by class.
        test: folders of the test images, by class; None without a part of them.
        notes: lines for the user on what one would not expect.
    """

    root: epath.Path
    train: Classes
    test: Classes | None
    notes: tuple[str, ...] = ()


def find_layout(root: epath.Path, left_out: LeftOut) -> Layout:
    """Finds the parts and their classes.

    Names of classes that differ only in Unicode's normal form are one name, in its composed form.

    Args:
        root: the folder.
        left_out: counts the files beside the folders of parts and classes.

    Raises:
        UsageError: the layout can be meant in several ways, or a folder cannot be read.
    """
    folders = _folders_in(root, left_out)
    notes = _settle_flat_parts(folders)
    parts = {
        part: [f for f in folders if part_of(f.name) == part and has_folders(f)] for part in _WORDS
    }
    train_root = _only(parts[TRAIN], root)
    test_root = _only(parts[TEST] or parts[VALIDATION], root)
    if test_root is None:
        _refuse_lookalikes(root, [f for f in folders if f != train_root])
        notes.append(f"no folder of test images in {root}: a part of each class is held out")
    elif train_root is None:
        raise UsageError(
            f"{root} has a folder {test_root.name} but none called train: add it, or keep class "
            "folders only"
        )
    elif real_path(train_root) == real_path(test_root):
        raise UsageError(
            f"{test_root} and {train_root} are one folder: test images must not be trained on; "
            "remove the link"
        )
    _refuse_classes_files([part for part in (train_root, test_root) if part], root)
    if train_root is None:
        train_root, train = root, _by_class(folders)
    else:
        notes += _describe_others([f for f in folders if f not in (train_root, test_root)])
        train = _by_class(_folders_in(train_root, left_out))
    test = None if test_root is None else _by_class(_folders_in(test_root, left_out))
    return Layout(train_root, train, test, (*notes, *_describe_forms(train, test or {})))


def layout_before(root: epath.Path) -> Layout:
    """The layout as it was read before there was `dataset.all_images`."""

    def classes_in(folder: epath.Path) -> Classes:
        entries = entries_of(folder)
        return {e.name: [e] for e in entries if e.is_dir() and was_seen(e)}

    train_root = root / "train" if (root / "train").is_dir() else root
    names = ("test", "val", "validation")
    test_root = next((root / name for name in names if (root / name).is_dir()), None)
    test = None if test_root is None else classes_in(test_root)
    return Layout(train_root, classes_in(train_root), test)


def was_seen(entry: epath.Path) -> bool:
    """Whether a name was seen before there was `dataset.all_images`."""
    return not entry.name.startswith(".") and not entry.name.endswith("~")


def count_below(folder: epath.Path, images: Iterable[epath.Path]) -> int:
    """Counts the images of a class that are not in its folder itself, but below it.

    Raises:
        UsageError: folders for training and for test images are among those below.
    """
    below = [path.parts[len(folder.parts) : -1] for path in images]
    parts = {part_of(inner[0]) for inner in {*below} if inner} - {None}
    if TRAIN in parts and len(parts) > 1:
        raise UsageError(
            f"class folder {folder} has folders for training and for test images: they must be "
            f"outside, as in train/{folder.name} and test/{folder.name}; move them"
        )
    return sum(map(bool, below))


def list_names(names: Iterable[str]) -> str:
    """The first names in alphabetical order, for a line."""
    ordered = sorted(names)
    return ", ".join(ordered[:_MAX_NAMES]) + (", ..." if ordered[_MAX_NAMES:] else "")


def part_of(name: str) -> str | None:
    """The part that a folder of this name holds."""
    return next((part for part, names in _NAMES.items() if names.fullmatch(name)), None)


def part_of_file(name: str) -> str | None:
    """The part that is a word of a file's name, as in train-00000-of-00001.parquet."""
    found = {part_of(word) for word in re.split(r"[\W_\d]+", name)} - {None}
    return found.pop() if len(found) == 1 else None


def _folders_in(folder: epath.Path, left_out: LeftOut) -> list[epath.Path]:
    """The folders in a folder; counts what else is there."""
    found = []
    for entry in entries_of(folder):
        if is_hidden(entry):
            left_out.add("hidden", entry.name)
        elif entry.is_dir() and leads_up(entry, folder):
            left_out.add("linked to a folder above", entry.name)
        elif entry.is_dir():
            found.append(entry)
        elif entry.name == CLASSES_FILE:
            continue
        elif is_image(entry):
            left_out.add("beside class folders", entry.name)
        else:
            left_out.add(entry.suffix.lower() or "without suffix", entry.name)
    return found


def has_folders(folder: epath.Path) -> bool:
    """Whether there are folders in a folder."""
    entries = entries_of(folder)
    folders = folders_among(entries)
    return any(entry.name in folders and not is_hidden(entry) for entry in entries)


def _settle_flat_parts(folders: list[epath.Path]) -> list[str]:
    """Takes folders that are called like parts and hold no classes out of `folders`, or refuses.

    Returns:
        Lines about them. A folder "train" of images beside class folders is a class.
    """
    notes = []
    flat = [f for f in folders if part_of(f.name) and not has_folders(f)]
    others = [f for f in folders if f not in flat]
    for folder in flat:
        if not any(is_image(entry) for entry in entries_of(folder)):
            folders.remove(folder)
            notes.append(f"{folder} is not read: it has neither images nor class folders")
        elif part_of(folder.name) == TRAIN and others and not any(part_of(f.name) for f in others):
            notes.append(f"{folder} has no class folders, and is taken for a class")
        else:
            raise UsageError(
                f"{folder} has images and no class folders: sort them into folders of classes, "
                "rename it, or move it away (rattn predict takes images without classes)"
            )
    return notes


def _only(folders: Collection[epath.Path], root: epath.Path) -> epath.Path | None:
    """The folder of a part, if there is one."""
    if len(folders) > 1:
        raise UsageError(
            f"{root} has the folders {list_names(f.name for f in folders)}, of which only one can "
            "be read: rename the others, or move them away"
        )
    return next(iter(folders), None)


def _refuse_classes_files(parts: Iterable[epath.Path], root: epath.Path) -> None:
    """Refuses an order of the classes that would not be read."""
    for part in parts:
        if (part / CLASSES_FILE).exists():
            raise UsageError(
                f"{part / CLASSES_FILE} is not read: the order of the classes must be in "
                f"{root / CLASSES_FILE}; move it there, or away"
            )


def _refuse_lookalikes(root: epath.Path, folders: Sequence[epath.Path]) -> None:
    """Refuses what would be classes, and may be parts: seg_train and seg_test."""
    words = {f.name: set(re.split(r"[\W_\d]+", f.name.lower())) for f in folders}
    train = [name for name, found in words.items() if found & _WORDS[TRAIN]]
    test = [name for name, found in words.items() if found & {*_WORDS[TEST], *_WORDS[VALIDATION]}]
    if train and test and any(has_folders(root / name) for name in train):
        raise UsageError(
            f"{root} has the folders {list_names({*train, *test})}, which may be parts or classes: "
            "call the parts train and test"
        )


def _describe_others(folders: Sequence[epath.Path]) -> list[str]:
    """A line about images beside the parts."""
    count = sum(len(images_below(folder, LeftOut())) for folder in folders)
    if not count:
        return []
    names = list_names(folder.name for folder in folders)
    return [f"{count:,} images in folders beside the parts are not read: {names}"]


def _by_class(folders: Iterable[epath.Path]) -> dict[str, list[epath.Path]]:
    classes: dict[str, list[epath.Path]] = {}
    for folder in folders:
        classes.setdefault(unicodedata.normalize("NFC", folder.name), []).append(folder)
    return classes


def _describe_forms(train: Classes, test: Classes) -> list[str]:
    """A line about classes whose folders have different names."""
    names = {
        name for name in train if len({f.name for f in (*train[name], *test.get(name, ()))}) > 1
    }
    if not names:
        return []
    return [
        f"folders whose names differ in Unicode's form alone are one class: {list_names(names)}"
    ]
