"""The most confident mistakes: pictures for the page, and a list for mistakes.csv."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from markupsafe import Markup

from rattn_jax.report.pictures import data_uri, thumbnail
from rattn_jax.report.rendering import render

MISTAKES = "mistakes.csv"
MAX_PICTURES = 24
_COLUMNS = ("split", "number", "name", "label", "prediction", "probability")


class Mistakes(NamedTuple):
    """The most confident mistakes, the most confident first; unused slots have probability -1.

    Attributes:
        probability: probability of the predicted class, float32 [NUM_MISTAKES].
        indices: indices of the examples in the split, int32 [NUM_MISTAKES].
        label: true class, int32 [NUM_MISTAKES].
        prediction: predicted class, int32 [NUM_MISTAKES].
    """

    probability: jax.Array | np.ndarray
    indices: jax.Array | np.ndarray
    label: jax.Array | np.ndarray
    prediction: jax.Array | np.ndarray


class Mistaken(NamedTuple):
    """The examples that were mistaken.

    Attributes:
        split: their split.
        num_examples: number of examples of the split.
        mistakes: the mistakes, used slots only.
        names: names of the examples, as many as mistakes.
        images: of the first MAX_PICTURES of them, uint8 [n, H, W, 3].
    """

    split: str
    num_examples: int
    mistakes: Mistakes
    names: Sequence[str]
    images: np.ndarray


class _Mistake(NamedTuple):
    """A line of the list; its fields are those of _COLUMNS."""

    split: str
    number: int
    name: str
    label: str
    prediction: str
    probability: float


def _lines(found: Mistaken, class_names: Sequence[str]) -> list[_Mistake]:
    values = zip(found.names, *(np.asarray(v).tolist() for v in found.mistakes), strict=True)
    return [
        _Mistake(found.split, index, name, class_names[label], class_names[predicted], probability)
        for name, probability, index, label, predicted in values
    ]


def mistakes_table(found: Mistaken, class_names: Sequence[str]) -> str:
    """The contents of mistakes.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for line in _lines(found, class_names):
        texts = (str(field).replace("\r", "\\r") for field in line[:-1])  # which csv may not quote
        table.writerow((*texts, f"{line.probability:.6f}"))
    return text.getvalue()


def mistakes_section(
    found: Mistaken, num_errors: int, class_names: Sequence[str], place: str
) -> Markup:
    """Pictures of the most confident mistakes.

    Args:
        found: the mistakes.
        num_errors: number of all mistakes.
        class_names: names of the classes.
        place: folder of the images, which their names on the page leave out.
    """
    text = f"None of the {found.num_examples:,} {found.split} images was mistaken."
    if num_errors:
        text = (
            f"Of all {found.num_examples:,} {found.split} images, those that the network was "
            f"surest of, and wrong. {MISTAKES} lists {len(found.names):,} of {num_errors:,} with "
            "their names."
        )
    return render(
        "mistakes.html",
        text=text,
        smooth=found.images.shape[1:2] > (48,),
        mistakes=[
            {
                **line._asdict(),
                "source": data_uri(thumbnail(image)),
                "share": f"{100 * line.probability:.1f} %",
                "short": line.name.removeprefix(f"{place}/"),
            }
            for image, line in zip(found.images, _lines(found, class_names), strict=False)
        ],
    )
