"""Errors by class: confusion matrix, table of the classes, most confident mistakes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from rattn_jax.report.markup import Html, details, join, section, table, tag
from rattn_jax.report.pictures import data_uri, matrix, thumbnail

MAX_CLASSES = 2_000  # for which confusions are counted: int32 [2000, 2000] takes 16 MB
_TABLE_CLASSES = 20  # up to this number the matrix is a table of numbers,
_PICTURE_CLASSES = 100  # up to this number a picture; above, a list of pairs of classes
_PAIRS = 15  # most confused ones to list
_SHOWN = 30  # classes that are listed unfolded


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


def wilson_interval(errors: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a rate (Wilson 1927).

    Args:
        errors: number of errors.
        count: number of trials, at least 1.
    """
    from scipy import stats  # takes half a second to import

    interval = stats.binomtest(errors, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def error_text(rate: float, count: int | None) -> Html:
    """An error rate with its confidence interval, if the number of examples is known."""
    shown = tag("span", f"{100 * rate:.2f} %")
    if not count or not math.isfinite(rate):
        return shown
    low, high = wilson_interval(round(rate * count), count)
    interval = tag("span", f"({100 * low:.2f} to {100 * high:.2f})", class_="faint")
    return tag("div", shown, " ", interval, class_="wraps")


def confusion_section(split: str, confusion: np.ndarray, names: Sequence[str]) -> Html:
    """The confusion matrix [K, K] as a table, a picture, or a list of its largest entries."""
    title = "Confusions"
    if not confusion.size:
        reason = f"Confusions are counted for up to {MAX_CLASSES:,} classes."
        return section(title, tag("p", reason))
    count = f"{int(confusion.sum()):,} {split} images"
    if len(names) <= _TABLE_CLASSES:
        text = f"{count}: rows are true classes, columns predicted ones. Framed: right answers."
        return section(title, tag("p", text), _matrix_table(confusion, names))
    parts = [_pairs(confusion, names)]
    if len(names) <= _PICTURE_CLASSES:
        text = (
            f"{count}: rows are true classes, from top to bottom in the order of their numbers, "
            "columns predicted ones from left to right; the darker, the larger the share of the "
            "row (its square root, so that rare confusions show)."
        )
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        picture = matrix(np.sqrt(shares), cell=max(4, 600 // len(names)))
        alt = "Confusion matrix; the table below lists its largest entries off the diagonal"
        image = tag("img", src=data_uri(picture), alt=alt, class_="matrix")
        parts = [tag("p", text), image, *parts]
    return section(title, *parts)


def _matrix_table(confusion: np.ndarray, names: Sequence[str]) -> Html:
    sizes = np.maximum(confusion.sum(axis=1), 1)

    def cell(i: int, j: int) -> Html:
        count = int(confusion[i, j])
        kind = "right" if i == j else None if count else "none"
        # Right answers would hide everything else.
        depth = 0.0 if i == j else min(1.0, math.sqrt(count / sizes[i]) * 1.6)
        style = f"background:rgba(var(--heat),{0.6 * depth:.2f})" if depth else None
        what = f"{count} of {int(confusion[i].sum())} {names[i]} taken for {names[j]}"
        return tag("td", count, class_=kind, style=style, title=what)

    head = tag(
        "tr",
        tag("th", "true \\ predicted"),
        *(tag("th", tag("span", name), scope="col") for name in names),
    )
    body = (
        tag(
            "tr", tag("th", name, scope="row", title=name), *(cell(i, j) for j in range(len(names)))
        )
        for i, name in enumerate(names)
    )
    whole = tag("table", tag("thead", head), tag("tbody", *body), class_="confusion")
    return tag("div", whole, class_="scroll", tabindex=0)


def _pairs(confusion: np.ndarray, names: Sequence[str]) -> Html:
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(place), len(names)) for place in order]
    rows = [
        (
            f"{names[i]} → {names[j]}",
            f"{wrong[i, j]:,}",
            f"{100 * wrong[i, j] / confusion[i].sum():.1f} %",
        )
        for i, j in places
        if wrong[i, j]
    ]
    header = ("true class → taken for", "images", "of the class")
    return join([tag("h3", "Most confused pairs"), table(header, rows)])


def class_section(confusion: np.ndarray, names: Sequence[str]) -> Html:
    """The classes with their errors, the worst first."""
    if not confusion.size:
        return Html("")
    sizes = confusion.sum(axis=1)
    wrong = confusion - np.diag(np.diag(confusion))
    errors = wrong.sum(axis=1)
    rates = errors / np.maximum(sizes, 1)
    header = ("class", "errors", "error (95 % interval)", "mostly taken for", "")
    rows = []
    for i in np.argsort(-rates, kind="stable"):
        rival = f"{names[int(wrong[i].argmax())]} ({wrong[i].max()})" if errors[i] else ""
        # Of the page's widest bar, so that small errors can be compared, too.
        width = 100 * rates[i] / (rates.max() or 1)
        rival = tag("div", rival, class_="wraps")
        bar = tag("span", "", class_="bar", style=f"width:{width:.1f}%")
        error = error_text(rates[i], int(sizes[i]))
        counts = f"{errors[i]:,} of {sizes[i]:,}"
        rows.append((names[i], counts, error if sizes[i] else "", rival, bar))
    whole = table(header, rows[:_SHOWN], class_="bars")
    rest = rows[_SHOWN:]
    more = details(f"The other {len(rest)} classes", table(header, rest, class_="bars"))
    return section("Classes", whole, more if rest else "")


def mistakes_section(
    split: str, count: int, mistakes: Mistakes, images: np.ndarray, names: Sequence[str]
) -> Html:
    """Pictures of the most confident mistakes.

    Args:
        split: name of the split.
        count: number of images of the split.
        mistakes: the mistakes, used slots only.
        images: uint8 [n, H, W, 3].
        names: names of the classes.
    """
    text = f"Of all {count:,} {split} images, those that the network was surest of, and wrong."
    if not len(images):
        text = f"None of the {count:,} {split} images was mistaken."
    lines = zip(images, *(np.asarray(values).tolist() for values in mistakes), strict=True)
    tiles = [
        tag(
            "figure",
            tag(
                "img",
                src=data_uri(thumbnail(image)),
                alt=f"{split} image {position}: {names[label]}, taken for {names[prediction]}",
            ),
            tag("div", "is ", tag("b", names[label])),
            tag("div", "taken for ", tag("b", names[prediction])),
            tag("div", f"with {100 * probability:.1f} %"),
            tag("div", f"no. {position}", class_="faint"),
        )
        for image, probability, position, label, prediction in lines
    ]
    kind = "tiles wide" + (" smooth" if images.shape[1:2] > (48,) else "")
    return section("Most confident mistakes", tag("p", text), tag("div", *tiles, class_=kind))
