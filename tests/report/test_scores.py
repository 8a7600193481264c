"""Scores against scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from rattn_jax.report.scores import NUM_BINS, Calibration, class_scores


@pytest.mark.parametrize("skill", [0.0, 0.7, 1.0])
def test_scores_are_those_of_scikit_learn(skill):
    """Class 5 has no examples, class 6 is never predicted, class 7 does not occur."""
    generator = np.random.RandomState(0)
    true = generator.choice([0, 1, 2, 3, 4, 6], 300, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    guess = generator.randint(0, 6, 300)
    predicted = np.where((generator.uniform(size=300) < skill) & (true != 6), true, guess)
    scores = class_scores(metrics.confusion_matrix(true, predicted, labels=range(8)))
    expected = metrics.precision_recall_fscore_support(
        true, predicted, labels=range(8), zero_division=np.nan
    )
    for found, values in zip(scores, expected, strict=True):
        np.testing.assert_allclose(found, values)
    macro = metrics.precision_recall_fscore_support(
        true, predicted, average="macro", zero_division=0
    )
    np.testing.assert_allclose(scores.macro(), macro[:3])
    seen = predicted != 5  # of which scikit-learn warns
    scores = class_scores(metrics.confusion_matrix(true[seen], predicted[seen], labels=range(8)))
    balanced = metrics.balanced_accuracy_score(true[seen], predicted[seen])
    assert scores.balanced_accuracy() == pytest.approx(balanced)


def test_scores_without_examples_are_not_numbers():
    for size in (0, 3):
        scores = class_scores(np.zeros((size, size), np.int32))
        assert all(map(math.isnan, (*scores.macro(), scores.balanced_accuracy())))
    nothing = np.zeros(NUM_BINS)
    assert math.isnan(Calibration(nothing, nothing, nothing).error())


def test_calibration_error():
    """Against its definition, with the bins of scikit-learn's reliability diagram."""
    generator = np.random.RandomState(0)
    probability = generator.uniform(0.1, 1, 500)
    is_right = generator.uniform(size=500) < probability**2
    accuracy, confidence = calibration_curve(is_right, probability, n_bins=NUM_BINS)
    bins = np.ceil(probability * NUM_BINS).astype(int) - 1
    sums = [np.bincount(bins, v, NUM_BINS) for v in (np.ones(500), is_right, probability)]
    weights = sums[0][sums[0] > 0] / 500
    expected = np.sum(weights * np.abs(accuracy - confidence))
    assert Calibration(*sums).error() == pytest.approx(expected)
