import numpy as np
import pytest

from rattn_jax.data.splits import hash_names, hold_out_count, hold_out_fraction, remaining
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


def test_a_seed_chooses_others():
    chosen = [hold_out_count(LABELS, 20, 4, seed=seed).tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert hold_out_count(LABELS, 20, 4).tolist() not in chosen
    assert np.bincount(LABELS[chosen[2]]).tolist() == [5] * 4
    hashes = hash_names([f"{i}.png" for i in range(len(LABELS))])
    assert hold_out_count(LABELS, 20, 4, hashes, seed=1).tolist() == chosen[0]


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


NAMES = [f"{number}.png" for number in range(200)]


def held_out_names(names, labels, **keywords):
    """Names of the examples that `keywords` hold out, with their classes."""
    labels = np.asarray(labels, np.int32)
    options = {"num_classes": 2, "hashes": hash_names(names), **keywords}
    hold_out = hold_out_count if "count" in options else hold_out_fraction
    return {(names[i], labels[i]) for i in hold_out(labels, **options)}


def test_names_are_hashed_alike_everywhere():
    assert hash_names(["1.png", "caf\u00e9.jpg"]).tolist() == [
        4135817480759431146,
        5514530286849952029,
    ]
    assert hash_names(["caf\u00e9.jpg"]) == hash_names(["cafe\u0301.jpg"]), "as a Mac writes it"
    assert len(set(hash_names(["\udcff.jpg", "\udcfe.jpg"]).tolist())) == 2, "names not in UTF-8"


def test_an_image_more_or_less_moves_no_other():
    labels = np.arange(200) % 2
    before = held_out_names(NAMES, labels, fraction=0.2)
    assert 30 <= len(before) <= 50
    for position in range(40):
        left = [*range(position), *range(position + 1, 200)]
        now = held_out_names([NAMES[i] for i in left], labels[left], fraction=0.2)
        assert now == before - {(NAMES[position], labels[position])}
        counts = [
            held_out_names(names, classes, count=20)
            for names, classes in ((NAMES, labels), ([NAMES[i] for i in left], labels[left]))
        ]
        assert len(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
def test_a_class_is_on_both_sides_if_it_has_two_images(fraction):
    for size in range(1, 6):
        names, labels = NAMES[: size + 3], [0] * size + [1] * 3
        held_out = held_out_names(names, labels, fraction=fraction)
        sizes = [sum(label == number for _, label in held_out) for number in (0, 1)]
        assert sizes[0] == 0 if size == 1 else 1 <= sizes[0] < size
        assert 1 <= sizes[1] < 3
        # The order in which a file system lists them does not matter.
        assert held_out == held_out_names(names[::-1], labels[::-1], fraction=fraction)


def test_the_rest():
    np.testing.assert_array_equal(remaining(6, np.array([1, 4])), [0, 2, 3, 5])


@pytest.mark.parametrize("hold_out", [hold_out_count, hold_out_fraction])
@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range(hold_out, label):
    labels = np.append(LABELS, np.int32(label))
    with pytest.raises(DataError, match=r"must lie in 0..3"):
        hold_out(labels, 0.5, 4)
