"""Errors by class: confusion matrix, and table of the classes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from rattn_jax.report.pictures import data_uri, matrix
from rattn_jax.report.rendering import render
from rattn_jax.report.scores import class_scores, percents

MAX_CLASSES = 2_000  # for which confusions are counted: int32 [2000, 2000] takes 16 MB
_TABLE_CLASSES = 20  # up to this number the matrix is a table of numbers,
_PICTURE_CLASSES = 100  # up to this number a picture; above, a list of pairs of classes
_PAIRS = 15  # most confused ones to list
_SHOWN = 30  # classes that are listed unfolded


def wilson_interval(errors: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a rate (Wilson 1927).

    Args:
        errors: number of errors.
        count: number of trials, at least 1.
    """
    from scipy import stats  # takes half a second to import

    interval = stats.binomtest(errors, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


class Rate(NamedTuple):
    """An error rate as text, and its confidence interval if the number of examples is known."""

    text: str
    interval: str | None


def error_rate(rate: float | None, count: int | None) -> Rate:
    """An error rate; a dash if it is None, or not finite, as that of no examples.

    Args:
        rate: the rate.
        count: number of examples; None if it is not known.
    """
    if rate is None or not math.isfinite(rate):
        return Rate("-", None)
    text = f"{100 * rate:.2f} %"
    if not count:
        return Rate(text, None)
    low, high = wilson_interval(round(rate * count), count)
    return Rate(text, f"{100 * low:.2f} to {100 * high:.2f}")


def error_text(rate: float | None, count: int | None) -> Markup:
    """An error rate with its confidence interval, for a cell of a table."""
    return render("error.html", rate=error_rate(rate, count))


def confusion_section(split: str, confusion: np.ndarray, names: Sequence[str]) -> Markup:
    """The confusion matrix [K, K] as a table, a picture, or a list of its largest entries."""
    count = f"{int(confusion.sum()):,} {split} images"
    text, cells, picture, pairs = "", None, None, None
    if not confusion.size:
        text = f"Confusions are counted for up to {MAX_CLASSES:,} classes."
    elif len(names) <= _TABLE_CLASSES:
        text = f"{count}: rows are true classes, columns predicted ones. Framed: right answers."
        cells = _cells(confusion, names)
    else:
        pairs = _pairs(confusion, names)
        if len(names) <= _PICTURE_CLASSES:
            text = (
                f"{count}: rows are true classes, from top to bottom in the order of their "
                "numbers, columns predicted ones from left to right; the darker, the larger the "
                "share of the row (its square root, so that rare confusions show)."
            )
            shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
            picture = data_uri(matrix(np.sqrt(shares), cell=max(4, 600 // len(names))))
    return render(
        "confusion.html", text=text, names=names, cells=cells, picture=picture, pairs=pairs
    )


class _Cell(NamedTuple):
    """An entry of the matrix: number of images, class of its style, color and explanation."""

    images: int
    kind: str | None
    heat: str | None
    what: str


def _cells(confusion: np.ndarray, names: Sequence[str]) -> list[list[_Cell]]:
    sizes = np.maximum(confusion.sum(axis=1), 1)

    def cell(i: int, j: int) -> _Cell:
        count = int(confusion[i, j])
        kind = "right" if i == j else None if count else "none"
        # Right answers would hide everything else.
        depth = 0.0 if i == j else min(1.0, math.sqrt(count / sizes[i]) * 1.6)
        what = f"{count} of {int(confusion[i].sum())} {names[i]} taken for {names[j]}"
        return _Cell(count, kind, f"{0.6 * depth:.2f}" if depth else None, what)

    return [[cell(i, j) for j in range(len(names))] for i in range(len(names))]


def _pairs(confusion: np.ndarray, names: Sequence[str]) -> list[tuple[str, str, str]]:
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    return [
        (
            f"{names[i]} → {names[j]}",
            f"{wrong[i, j]:,}",
            f"{100 * wrong[i, j] / confusion[i].sum():.1f} %",
        )
        for i, j in (divmod(int(entry), len(names)) for entry in order)
        if wrong[i, j]
    ]


class _Class(NamedTuple):
    """A line of the table of classes; `width` is that of its bar, in percent."""

    name: str
    images: str
    errors: str
    rate: Rate | None
    scores: list[str]
    rival: str
    width: str


def class_section(confusion: np.ndarray, names: Sequence[str], note: str = "") -> Markup:
    """The classes with their errors and scores, the worst first; `note` says more about them."""
    if not confusion.size:
        return Markup("")
    sizes = confusion.sum(axis=1)
    wrong = confusion - np.diag(np.diag(confusion))
    errors, scores = wrong.sum(axis=1), class_scores(confusion)
    rates = errors / np.maximum(sizes, 1)
    rows = [
        _Class(
            name=names[i],
            images=f"{sizes[i]:,}",
            errors=f"{errors[i]:,}",
            rate=error_rate(rates[i], int(sizes[i])) if sizes[i] else None,
            scores=percents(values[i] for values in scores[:3]),
            rival=f"{names[int(wrong[i].argmax())]} ({wrong[i].max()})" if errors[i] else "",
            # Of the widest bar, so that small errors can be compared, too.
            width=f"{100 * rates[i] / (rates.max() or 1):.1f}",
        )
        for i in np.argsort(-rates, kind="stable")
    ]
    return render(
        "classes.html",
        note=note,
        shown=rows[:_SHOWN],
        rest=rows[_SHOWN:],
        images=f"{sizes.sum():,}",
        errors=f"{errors.sum():,}",
        macro=percents(scores.macro()),
    )
