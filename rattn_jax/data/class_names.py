"""Names of classes for people: "great white shark", where TFDS has "n01484850".

readable_names(("n01484850", "aquarium_fish", "cat"))    # ("great white shark", ..., "cat")
"""

from collections.abc import Sequence
from functools import cache

from etils import epath

_TABLE = epath.Path(__file__).parent / "class_names.tsv"


def readable_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of a dataset's classes as people read them; others stay as they are."""
    table = _read()
    return tuple(table.get(name, name) for name in names)


@cache
def _read() -> dict[str, str]:
    lines = _TABLE.read_text().splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))
