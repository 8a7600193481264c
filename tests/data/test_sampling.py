import numpy as np
import pytest

from rattn_jax.data.sampling import (
    class_members,
    evaluation_indices,
    training_index,
    training_indices,
)
from rattn_jax.errors import DataError


def steps(seed, first, last, batch_size=4, num_examples=10):
    return np.concatenate(
        [training_indices(seed, step, batch_size, num_examples) for step in range(first, last)]
    )


def test_each_epoch_holds_every_example_once_and_epochs_join_without_a_gap():
    order = steps(seed=3, first=0, last=5)  # 20 places: two epochs of 10
    assert order.dtype == np.int32
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert list(order[:10]) != list(order[10:])


def test_order_is_a_function_of_seed_and_step():
    np.testing.assert_array_equal(steps(3, 2, 5), steps(3, 0, 5)[8:])
    assert list(steps(3, 0, 5)) != list(steps(4, 0, 5))


def test_order_does_not_depend_on_the_grouping_into_batches():
    np.testing.assert_array_equal(steps(3, 0, 6, batch_size=2), steps(3, 0, 3, batch_size=4))


def test_order_is_the_same_under_every_version():
    assert list(training_indices(0, step=0, batch_size=10, num_examples=10)) == [
        3,
        7,
        6,
        4,
        1,
        0,
        2,
        8,
        5,
        9,
    ]
    assert list(training_indices(7, step=1, batch_size=10, num_examples=10)) == [
        9,
        8,
        5,
        6,
        2,
        3,
        7,
        0,
        1,
        4,
    ]


def test_batch_larger_than_the_split():
    indices = training_indices(seed=0, step=1, batch_size=25, num_examples=10)
    np.testing.assert_array_equal(np.bincount(indices, minlength=10).sum(), 25)
    assert np.bincount(indices, minlength=10).min() >= 2


@pytest.mark.parametrize("num_examples", [1, 7, 8, 9, 360])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("batches_per_call", [1, 3, 100])
def test_evaluation_indices_hold_every_example_once(num_examples, batch_size, batches_per_call):
    calls = list(evaluation_indices(batch_size, num_examples, batches_per_call))
    seen = np.concatenate([indices[mask] for indices, mask in calls])
    np.testing.assert_array_equal(seen, np.arange(num_examples))
    assert len({indices.shape for indices, _ in calls}) == 1  # so one compilation
    assert calls[0][0].shape[0] <= batches_per_call
    assert calls[0][0].shape[1] == batch_size
    assert all(indices.max() < num_examples for indices, _ in calls)


LABELS = np.repeat([4, 0, 2], [20, 7, 3])  # as positions 0 .. 19, 20 .. 26, 27 .. 29
MEMBERS = class_members(LABELS)


def balanced(first, last, batch_size=6, seed=0):
    return np.concatenate(
        [training_indices(seed, step, batch_size, 30, MEMBERS) for step in range(first, last)]
    )


def test_a_balanced_order_has_every_class_once_in_a_round():
    order = balanced(0, 200)
    rounds = LABELS[order].reshape(-1, 3)
    assert {tuple(sorted(row)) for row in rounds.tolist()} == {(0, 2, 4)}
    assert len({*map(tuple, rounds.tolist())}) == 6, "in random order"
    for label, size in ((4, 20), (0, 7), (2, 3)):
        here = order[LABELS[order] == label]
        epochs = here[: len(here) // size * size].reshape(-1, size)
        members = np.flatnonzero(np.equal(LABELS, label)).tolist()
        assert all(sorted(epoch) == members for epoch in epochs.tolist()), "each once an epoch"
        assert len({*map(tuple, epochs.tolist())}) > 1


def test_a_balanced_order_is_a_function_of_seed_and_place():
    whole = balanced(0, 300)  # over the border of a block of random numbers
    np.testing.assert_array_equal(balanced(250, 300), whole[1500:])
    np.testing.assert_array_equal(balanced(0, 900, batch_size=2), whole)
    assert [training_index(0, place, 30, MEMBERS) for place in range(1500, 1560)] == list(
        whole[1500:1560]
    )
    assert list(balanced(0, 300, seed=1)) != list(whole)
    assert list(whole[:9]) == [20, 28, 2, 14, 27, 24, 25, 29, 16], "under every version"


def test_members_of_classes_of_which_some_have_none():
    assert [list(found) for found in class_members(np.array([3, 0, 3, 5]))] == [[1], [0, 2], [3]]
    with pytest.raises(DataError, match="has the label -1: must be at least 0"):
        class_members(np.array([0, -1]))
