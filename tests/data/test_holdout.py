import numpy as np
import pytest

from rattn_jax.data.splits import hold_out_count, hold_out_fraction, remaining
from rattn_jax.errors import DataError, UsageError

LABELS = np.repeat(np.arange(4, dtype=np.int32), [50, 30, 20, 10])[
    np.random.RandomState(0).permutation(110)
]


@pytest.mark.parametrize("count", [1, 4, 10, 36])
def test_classes_are_balanced(count):
    held_out = hold_out_count(LABELS, count, 4)
    assert len(held_out) == len(set(held_out)) == count
    sizes = np.bincount(LABELS[held_out], minlength=4)
    assert sizes.max() - sizes.min() <= 1
    assert list(held_out) == sorted(held_out)


def test_the_slice_is_fixed():
    np.testing.assert_array_equal(hold_out_count(LABELS, 8, 4), hold_out_count(LABELS, 8, 4))
    # A smaller slice lies in a larger one.
    assert set(hold_out_count(LABELS, 8, 4)) <= set(hold_out_count(LABELS, 20, 4))


def test_the_slice_is_not_the_first_examples():
    labels = np.zeros(1000, np.int32)
    assert hold_out_count(labels, 100, 1).mean() == pytest.approx(500, abs=100)


def test_each_class_keeps_an_example():
    hold_out_count(LABELS, 36, 4)  # 9 of the 10
    with pytest.raises(UsageError, match=r"takes 10 of the 10 .* class 3: .* use at most 36"):
        hold_out_count(LABELS, 40, 4)
    with pytest.raises(UsageError, match="takes 2 of the 0 training examples of class 4"):
        hold_out_count(LABELS, 10, 5)


def test_fraction_of_each_class():
    sizes = np.bincount(LABELS[hold_out_fraction(LABELS, 0.1, 4)])
    np.testing.assert_array_equal(sizes, [5, 3, 2, 1])
    labels = np.array([0, 1, 1, 2, 2, 2], np.int32)
    sizes = np.bincount(labels[hold_out_fraction(labels, 0.99, 3)], minlength=3)
    np.testing.assert_array_equal(sizes, [0, 1, 2])


def test_the_rest():
    np.testing.assert_array_equal(remaining(6, np.array([1, 4])), [0, 2, 3, 5])


@pytest.mark.parametrize("hold_out", [hold_out_count, hold_out_fraction])
@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range(hold_out, label):
    labels = np.append(LABELS, np.int32(label))
    with pytest.raises(DataError, match=r"must lie in 0..3"):
        hold_out(labels, 0.5, 4)
