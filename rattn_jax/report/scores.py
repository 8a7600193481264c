"""Scores of a classification: precision, recall, F1, balanced accuracy, calibration.

scores = class_scores(confusion)
scores.precision[3], scores.macro().f1, scores.balanced_accuracy()
calibration.error()

The definitions are scikit-learn's.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

NUM_BINS = 15  # of the expected calibration error (Guo et al., 2017)

Array = jax.Array | np.ndarray


class Macro(NamedTuple):
    """Means over the classes that occur, as true or as predicted ones."""

    precision: float
    recall: float
    f1: float


class ClassScores(NamedTuple):
    """Scores of each class; NaN where there is nothing to divide by.

    Attributes:
        precision: right predictions, of all predictions of the class, float [K].
        recall: right predictions, of all examples of the class, float [K].
        f1: harmonic mean of both, float [K].
        support: number of examples, int [K].
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray

    def macro(self) -> Macro:
        """Means over the classes, in which NaN counts as 0; NaN without any class."""
        occurs = ~np.isnan(self.f1)
        return Macro(*(_mean(np.nan_to_num(values[occurs])) for values in self[:3]))

    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples; NaN without any."""
        return _mean(self.recall[self.support > 0])


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Scores by a confusion matrix, int [K, K]: examples by true and by predicted class."""
    right, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return ClassScores(
            right / predicted, right / support, 2 * right / (support + predicted), support
        )


class Calibration(NamedTuple):
    """Sums over examples, by the probability of the predicted class in NUM_BINS bins of (0, 1].

    The bins are equally wide, and a probability on an edge belongs to the lower one. Examples
    whose probabilities are not finite are left out.

    Attributes:
        total: number of examples, int32 [NUM_BINS].
        right: those that are predicted right, int32 [NUM_BINS].
        confidence: sum of the probabilities, float32 [NUM_BINS].
    """

    total: Array
    right: Array
    confidence: Array

    def error(self) -> float:
        """Expected calibration error: the mean gap of probability and accuracy; NaN if empty."""
        count = np.sum(self.total)
        gaps = np.abs(np.asarray(self.confidence, np.float64) - self.right)
        return float(gaps.sum() / count) if count else float("nan")


def percents(values: Iterable[float]) -> list[str]:
    """Scores as text; a dash where one is not defined."""
    return ["-" if math.isnan(value) else f"{100 * value:.2f} %" for value in values]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
