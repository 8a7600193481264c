"""Label noise: its distribution, and that it is a function of (seed, index)."""

import numpy as np
import pytest

from rattn_jax.data.dataset import ArraySource, Subset
from rattn_jax.data.label_noise import LabelNoise, NoisySource, read_matrix, symmetric_matrix
from rattn_jax.errors import UsageError

MATRIX = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])


def draw(matrix, label, count, seed=0):
    noise = LabelNoise(matrix, seed)
    return np.array([noise(index, label) for index in range(count)])


def test_symmetric_matrix():
    matrix = symmetric_matrix(10, 0.7)
    np.testing.assert_allclose(np.diag(matrix), 0.7)
    np.testing.assert_allclose(matrix[~np.eye(10, dtype=bool)], 0.3 / 9)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_labels_follow_their_row(label):
    shares = np.bincount(draw(MATRIX, label, 20_000), minlength=3) / 20_000
    np.testing.assert_allclose(shares, MATRIX[label], atol=0.012)
    assert not shares[MATRIX[label] == 0].any()


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_share_of_clean_labels(ratio):
    labels = draw(symmetric_matrix(10, ratio), 4, 20_000)
    assert (labels == 4).mean() == pytest.approx(ratio, abs=0.01)


def test_noise_is_a_function_of_seed_and_index():
    labels = draw(MATRIX, 2, 500)
    noise = LabelNoise(MATRIX, 0)
    for index in (499, 3, 70_000, 3, 0):  # in any order, over blocks
        assert noise(index, 2) == LabelNoise(MATRIX, 0)(index, 2)
        if index < 500:
            assert noise(index, 2) == labels[index]
    assert (draw(MATRIX, 2, 500, seed=1) != labels).any()


def test_the_same_labels_under_every_version():
    golden = [6, 9, 0, 3, 0, 4, 0, 6, 4, 9, 0, 2]
    np.testing.assert_array_equal(draw(symmetric_matrix(10, 0.5), 0, 12), golden)


def test_source_keeps_the_clean_labels_and_the_index_decides():
    images, labels = np.zeros((300, 1, 1, 3), np.uint8), np.full(300, 2, np.int32)
    clean = ArraySource("a", images, labels)
    noisy = NoisySource(clean, LabelNoise(MATRIX, 0))
    found = [noisy[i].label for i in range(300)]
    np.testing.assert_array_equal(found, draw(MATRIX, 2, 300))
    assert {noisy[i].clean_label for i in range(300)} == {2}
    np.testing.assert_array_equal(noisy.labels(), labels)
    assert (len(noisy), noisy.name(7)) == (300, "a[7]")
    # A held-out slice, before or after, changes no other label.
    part = range(40, 300, 3)
    for source in (Subset(noisy, part), NoisySource(Subset(clean, part), LabelNoise(MATRIX, 0))):
        assert [source[i].label for i in range(87)] == [found[i] for i in part]


def test_last_class_is_reached_though_sums_round_below_one():
    matrix = np.full((3, 3), 1 / 3 - 1e-9)
    noise = LabelNoise(matrix, 0)
    assert {noise(i, 0) for i in range(100)} == {0, 1, 2}


@pytest.mark.parametrize("separator", [" ", ", "])
def test_matrix_from_text(tmp_path, separator):
    text = "\n".join(separator.join(map(str, row)) for row in MATRIX)
    (tmp_path / "m.csv").write_text(text + "\n")
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.csv", 3), MATRIX)


def test_matrix_from_npy(tmp_path):
    np.save(tmp_path / "m.npy", MATRIX)
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.npy", 3), MATRIX)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0\n0 1", r"has the shape \[2, 2\]: must be \[3, 3\]"),
        ("1 0 0\n0 1 0\n0 0 x", "is not a matrix of numbers"),
        ("1 0 0\n0 1 0\n0 0", "is not a matrix of numbers"),
        ("1 0 0\n0.5 0.4 0\n0 0 1", r"row 1 of .* is not a distribution \(sum 0.9"),
        ("1 0 0\n0 1 0\n2 -1 0", r"row 2 of .* is not a distribution \(sum 1, least -1\)"),
        ("1 0 0\n0 nan 0\n0 0 1", "row 1 of .* is not a distribution"),
    ],
)
def test_bad_matrix(tmp_path, text, message):
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_matrix(tmp_path / "m.txt", 3)
    assert "\n" not in str(caught.value)
    assert "correct the file that dataset.label_noise.matrix names" in str(caught.value)


def test_an_npy_file_that_is_none(tmp_path):
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "several.npz", MATRIX)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    np.save(tmp_path / "fields.npy", np.zeros(3, [("a", float), ("b", float)]))
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04" + bytes(30))
    np.save(tmp_path / "header.npy", MATRIX)
    whole = (tmp_path / "header.npy").read_bytes()
    (tmp_path / "header.npy").write_bytes(whole.replace(b"}", b"(", 1))
    for name in ("empty", "several", "fields", "zip", "header"):
        with pytest.raises(UsageError, match=rf"{name}.npy is not a matrix of numbers"):
            read_matrix(tmp_path / f"{name}.npy", 3)


def test_matrix_file_that_is_not_there_or_would_run_code(tmp_path):
    with pytest.raises(UsageError, match="is not a matrix of numbers"):
        read_matrix(tmp_path / "m.txt", 3)
    np.save(tmp_path / "m.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UsageError, match="is not a matrix of numbers"):
        read_matrix(tmp_path / "m.npy", 3)
