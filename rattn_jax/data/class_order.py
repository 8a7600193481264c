"""The order of the classes that a user states, by the config or a file "classes.txt".

dataset = in_order(dataset, ("dog", "cat"), "dataset.classes")
dataset.class_names       # ("dog", "cat")
"""

import dataclasses
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from etils import epath

from rattn_jax.data.dataset import Dataset, Relabelled
from rattn_jax.errors import UsageError

CLASSES_FILE = "classes.txt"  # beside one's own data: the name of a class in each line
_MAX_NAMES = 5  # that a line lists


def are_numbers(names: Collection[str]) -> bool:
    """Whether all names of classes are whole numbers."""
    return all(name.isascii() and name.isdigit() for name in names)


def sort_key(names: Collection[str]) -> Callable[[str], Any]:
    """The key by which names of classes are sorted: by size if all are numbers."""
    return (lambda name: (int(name), name)) if are_numbers(names) else (lambda name: name)


def read_classes(folder: epath.Path) -> tuple[str, ...] | None:
    """The names in the file of the classes; None without one.

    Raises:
        UsageError: it cannot be read.
    """
    file = folder / CLASSES_FILE
    try:
        text = file.read_text() if file.exists() else None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file} cannot be read ({error}): must be a text file in UTF-8 with the name of a "
            "class in each line; correct it"
        ) from error
    if text is None:
        return None
    return tuple(filter(None, map(str.strip, text.removeprefix("\ufeff").splitlines())))


def in_order(dataset: Dataset, stated: Sequence[str], where: str) -> Dataset:
    """The dataset with its classes in another order.

    Args:
        dataset: the dataset.
        stated: the names of all its classes. Where they are numbers, these may be other names, of
            the classes 0, 1, 2, ...
        where: they are stated, for messages.

    Raises:
        UsageError: a class is stated twice, does not occur, or is not stated.
    """
    names = [unicodedata.normalize("NFC", str(name)) for name in stated]
    found = list(dataset.class_names)
    if {*found} == {*map(str, range(len(names)))} and not are_numbers(names):
        found = [names[int(name)] for name in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    wrong = [
        f"states {_listed(twice)} twice" if twice else "",
        f"states {_listed(unknown)}, which has no images"
        if (unknown := {*names} - {*found})
        else "",
        f"lacks {_listed(lacking)}" if (lacking := {*found} - {*names}) else "",
    ]
    if any(wrong):
        raise UsageError(
            f"{where} {' and '.join(filter(None, wrong))}: must state each class of {dataset.name} "
            "once; correct it"
        )
    places = {name: place for place, name in enumerate(names)}
    numbers = np.array([places[name] for name in found], np.int32)
    if dataset.label_sets is not None:
        sets = dataset.label_sets[:, np.argsort(numbers)]
        return dataclasses.replace(dataset, class_names=tuple(names), label_sets=sets)
    return dataclasses.replace(
        dataset,
        class_names=tuple(names),
        train=Relabelled(dataset.train, numbers),
        test=Relabelled(dataset.test, numbers),
    )


def _listed(names: Collection[str]) -> str:
    ordered = [repr(name) for name in sorted(names)]
    return ", ".join(ordered[:_MAX_NAMES]) + (", ..." if ordered[_MAX_NAMES:] else "")
