"""Makes classes of what tables and shards have as labels: names, numbers, or nothing.

found = number_classes(Labels(["cat", "dog"], place), Labels(["dog"], place))
found.class_names, found.train     # ("cat", "dog"), [0, 1]
"""

import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
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
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None


class Labels(NamedTuple):
    """Labels of a part as they are stored.

    Attributes:
        values: names or numbers; what is empty is no label, nor is a number below 0 that should
            stand for a name.
        place: says where one is, such as "line 7 of labels.csv".
        names: names of the classes that numbers stand for.
    """

    values: Sequence[Any]
    place: Callable[[int], str]
    names: Sequence[str] | None = None


class Classes(NamedTuple):
    """Classes of a dataset.

    Attributes:
        class_names: their names, in the order of the labels.
        train: labels of the training examples, int32 [N].
        test: labels of the test examples, int32 [N]; None without a test part.
        notes: lines for the user.
    """

    class_names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray | None
    notes: tuple[str, ...]


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
        if labels is None or all(_class_name(x, labels.names) is None for x in labels.values):
            notes.append(f"{place} is not read: it has no labels")
        elif chosen is None:
            chosen = part
        else:
            count = len(labels.values)
            notes.append(f"images of another part that are not read: {count:,} of {place}")
    return chosen


def number_classes(train: Labels, test: Labels | None) -> Classes:
    """Numbers the classes: in the order of the stored names, of numbers, or of the alphabet.

    Raises:
        UsageError: an example has no label; there are fewer than two classes; or only the test part
            has a class.
    """
    given = _class_names(train)
    present = set(given)
    if len(present) < 2:
        raise UsageError(
            f"{train.place(0)} and all others have the label {given[0]!r}: there must be at least "
            "2 classes; add images of another one, or choose another column of labels"
        )
    notes = []
    if train.names is None:
        ordered = sorted(present, key=sort_key(present))
    else:
        ordered = [name for name in train.names if name in present]
        if without := [name for name in train.names if name not in present]:
            notes.append(
                f"{len(without)} of the classes have no training images, and are left out: "
                f"{list_names(without)}"
            )
    numbers = {name: number for number, name in enumerate(ordered)}
    tested = None
    if test is not None:
        names = _class_names(test)
        unknown = next((i for i, name in enumerate(names) if name not in numbers), None)
        if unknown is not None:
            raise UsageError(
                f"{test.place(unknown)} has the class {names[unknown]!r}, of which there are no "
                "training images: remove it, or add training images of it"
            )
        tested = np.array([numbers[name] for name in names], np.int32)
        if lacking := sorted(numbers.keys() - {*names}):
            text = f"{len(lacking)} of the classes have no test images: {list_names(lacking)}"
            notes.append(text)
    labels = np.array([numbers[name] for name in given], np.int32)
    return Classes(tuple(ordered), labels, tested, tuple(notes))


def _class_names(labels: Labels) -> list[str]:
    names = [_class_name(value, labels.names) for value in labels.values]
    without = [i for i, name in enumerate(names) if name is None]
    if without:
        more = f", and {len(without) - 1:,} more have none" if len(without) > 1 else ""
        raise UsageError(
            f"{labels.place(without[0])} has no label{more}: each image must have one; fill it in, "
            "or remove the row"
        )
    return [name for name in names if name is not None]


def _class_name(value: Any, names: Sequence[str] | None) -> str | None:
    """The class that a label stands for; None if it is none."""
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
