import numpy as np
import pytest

from rattn_jax.data.sampling import evaluation_indices, training_indices


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
