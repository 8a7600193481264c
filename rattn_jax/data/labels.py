"""Makes classes of what tables and shards have as labels: names, numbers, or nothing.

found = number_classes(Labels(["cat", "dog"], place), Labels(["dog"], place))
found.class_names, found.train     # ("cat", "dog"), [0, 1]
"""

import json
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rattn_jax.data.class_order import sort_key
from rattn_jax.data.image_layout import list_names
from rattn_jax.errors import UsageError

Part = TypeVar("Part")

# Usual names of columns, in any case and with any marks between the words.
_USUAL = {
    "image": {"filename", "file", "filepath", "image", "imagepath", "imagefile", "imagename"}
    | {"img", "imgpath", "path"},
    "label": {"label", "labels", "labelname", "class", "classname", "category", "target"},
    "split": {"split", "set", "subset", "partition"},
}


class Columns(NamedTuple):
    """Names of columns; None: found by usual names.

    Attributes:
        image: of the images, or of their files.
        label: of their classes.
        split: of their parts.
        separator: between the classes of an image, where it may have several.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    separator: str | None = None


class Labels(NamedTuple):
    """Labels of a part as they are stored.

    Attributes:
        values: names or numbers, or several of them as a list, as JSON or with separators between
            them; what is empty is no label, nor is a number below 0 that should stand for a name.
        place: says where one is, such as "line 7 of labels.csv".
        names: names of the classes that numbers stand for.
        separator: see `Columns`.
    """

    values: Sequence[Any]
    place: Callable[[int], str]
    names: Sequence[str] | None = None
    separator: str | None = None


class Classes(NamedTuple):
    """Classes of a dataset.

    Attributes:
        class_names: their names, in the order of the outputs of a network.
        train: labels of the training examples, int32 [N].
        test: labels of the test examples, int32 [N]; None without a test part.
        notes: lines for the user.
        texts: what each label is called: the class, or its classes.
        label_sets: see `Dataset`.
    """

    class_names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray | None
    notes: tuple[str, ...]
    texts: Sequence[str]
    label_sets: np.ndarray | None


def find_column(kind: str, columns: Collection[str], chosen: str | None, place: str) -> str | None:
    """The column of a kind: the chosen one, or the one of a usual name; None if there is none.

    Args:
        kind: "image", "label" or "split".
        columns: names of all columns.
        chosen: what `dataset.KIND_column` says.
        place: the file, for messages.

    Raises:
        UsageError: there is no such column, or several have usual names.
    """
    if chosen is not None:
        if chosen not in columns:
            raise UsageError(
                f"dataset.{kind}_column={chosen!r}: {place} has the columns {_listed(columns)}; "
                "name one of them"
            )
        return chosen
    plain = {name: "".join(filter(str.isalnum, name.lower())) for name in columns}
    found = [name for name, text in plain.items() if text in _USUAL[kind]]
    if len(found) > 1:
        raise UsageError(
            f"{place} has the columns {_listed(found)}: say which one is meant with "
            f"--config.dataset.{kind}_column=NAME"
        )
    return found[0] if found else None


def need_column(kind: str, columns: Collection[str], chosen: str | None, place: str) -> str:
    """See `find_column`.

    Raises:
        UsageError: also, if there is none.
    """
    found = find_column(kind, columns, chosen, place)
    if found is None:
        usual = ", ".join(sorted(_USUAL[kind]))
        raise UsageError(
            f"{place} has the columns {_listed(columns)}, and none with a usual name for the "
            f"{kind} ({usual}): name it with --config.dataset.{kind}_column=NAME"
        )
    return found


def first_labelled(
    parts: Iterable[tuple[Part, Labels | None, str]], notes: list[str]
) -> Part | None:
    """The first of some parts that can be tested on; adds a line about each of the others.

    Args:
        parts: parts, their labels, and where they are.
        notes: lines for the user.
    """
    chosen = None
    for part, labels, place in parts:
        if labels is None or not any(_classes_of(value, labels) for value in labels.values):
            notes.append(f"{place} is not read: it has no labels")
        elif chosen is None:
            chosen = part
        else:
            count = len(labels.values)
            notes.append(f"images of another part that are not read: {count:,} of {place}")
    return chosen


def number_classes(train: Labels, test: Labels | None) -> Classes:
    """Numbers the classes: in the order of the stored names, of numbers, or of the alphabet.

    Where an image may have several classes, it is the sets of classes that occur which labels
    number.

    Raises:
        UsageError: an example has no label; there are fewer than two classes; or only the test part
            has a class.
    """
    parts = [train] if test is None else [train, test]
    several = any(_are_several(value, part) for part in parts for value in part.values)
    found = [_all_classes(part, several) for part in parts]
    present = {name for classes in found[0] for name in classes}
    if len(present) < 2:
        raise UsageError(
            f"all labels up to {train.place(len(found[0]) - 1)} are {_listed(present)}: there must "
            "be at least 2 classes; add images of another one, or choose another column of labels"
        )
    ordered, notes = _in_order(present, train.names)
    numbers = {name: number for number, name in enumerate(ordered)}
    if test is not None:
        notes += _compare(test, found[1], numbers)
    if several and (without := sum(not classes for part in found for classes in part)):
        notes.append(f"images that have none of the classes: {without:,}")
    sets = sorted({_numbered(classes, numbers) for part in found for classes in part})
    if not several:
        sets = [(number,) for number in range(len(ordered))]
    places = {numbered: place for place, numbered in enumerate(sets)}
    labels = [
        np.array([places[_numbered(classes, numbers)] for classes in part], np.int32)
        for part in found
    ]
    return Classes(
        tuple(ordered),
        labels[0],
        labels[1] if test is not None else None,
        tuple(notes),
        texts=["+".join(ordered[number] for number in numbered) for numbered in sets],
        label_sets=_as_matrix(sets, len(ordered)) if several else None,
    )


def _in_order(present: set[str], names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The classes that occur, and a line about those that do not."""
    if names is None:
        return sorted(present, key=sort_key(present)), []
    without = [name for name in names if name not in present]
    text = (
        f"{len(without)} of the classes have no training images, and are left out: "
        f"{list_names(without)}"
    )
    return [name for name in names if name in present], [text] if without else []


def _compare(
    test: Labels, classes: Sequence[Sequence[str]], numbers: Mapping[str, int]
) -> list[str]:
    """Refuses classes that only the test part has; a line about those that it lacks."""
    for position, names in enumerate(classes):
        if unknown := [name for name in names if name not in numbers]:
            raise UsageError(
                f"{test.place(position)} has the class {unknown[0]!r}, of which there are no "
                "training images: remove it, or add training images of it"
            )
    lacking = sorted(numbers.keys() - {name for names in classes for name in names})
    text = f"{len(lacking)} of the classes have no test images: {list_names(lacking)}"
    return [text] if lacking else []


def _numbered(classes: Sequence[str], numbers: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sorted({numbers[name] for name in classes}))


def _as_matrix(sets: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    matrix = np.zeros((len(sets), num_classes), np.uint8)
    for row, numbers in zip(matrix, sets, strict=True):
        row[list(numbers)] = 1
    return matrix


def _all_classes(labels: Labels, several: bool) -> list[Sequence[str]]:
    """The classes of each image: one, unless several are possible."""
    classes = [_classes_of(value, labels) for value in labels.values]
    without = [i for i, names in enumerate(classes) if names is None or not (names or several)]
    if without:
        more = f", and {len(without) - 1:,} more have none" if len(without) > 1 else ""
        raise UsageError(
            f"{labels.place(without[0])} has no label{more}: each image must have one; fill it in, "
            "or remove the row"
        )
    return [names or () for names in classes]


def _are_several(value: Any, labels: Labels) -> bool:
    """Whether a label is a list, or may be one."""
    return labels.separator is not None or isinstance(_parsed(value), list)


def _parsed(value: Any) -> Any:
    """A list that is written as JSON, as a table of text has it; or else the value."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


def _classes_of(value: Any, labels: Labels) -> Sequence[str] | None:
    """The classes that a label stands for; None if it is none."""
    value = _parsed(value)
    if labels.separator is not None and isinstance(value, str):
        value = [part for part in value.split(labels.separator) if part.strip()]
    if not isinstance(value, list):
        name = _class_name(value, labels.names)
        return None if name is None else (name,)
    names = [_class_name(part, labels.names) for part in value]
    return [name for name in names if name is not None]


def _class_name(value: Any, names: Sequence[str] | None) -> str | None:
    """The class that a name or a number stands for; None if it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | bool):
        return unicodedata.normalize("NFC", str(value)).strip() or None
    if not isinstance(value, int):
        raise UsageError(
            f"the label {value!r} is no class: labels must be names or whole numbers; choose "
            "another column with --config.dataset.label_column=NAME"
        )
    if names is None:
        return str(value)
    if value < 0:  # how `datasets` writes that there is none
        return None
    if value >= len(names):
        raise UsageError(
            f"the label {value} is out of range: the data names {len(names)} classes; correct it"
        )
    return names[value]


def _listed(columns: Collection[str]) -> str:
    return ", ".join(map(str, columns)) or "none"
