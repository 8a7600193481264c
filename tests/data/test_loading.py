"""Whole splits in memory, and bad examples."""

import numpy as np
import pytest

from rattn_jax.data.dataset import ArraySource, Example, Subset
from rattn_jax.data.exclude import read_exclude_file
from rattn_jax.data.label_noise import LabelNoise, NoisySource
from rattn_jax.data.read import BadExample, BadExamples, load_split
from rattn_jax.errors import DataError, UsageError
from tests.data.images import encode, pixels


class Files:
    """A source of encoded files; None stands for a record that cannot be read."""

    def __init__(self, files, labels=None):
        self.files = files
        self.numbers = np.arange(len(files), dtype=np.int32) if labels is None else labels

    def __len__(self):
        return len(self.files)

    def __getitem__(self, position):
        if self.files[position] is None:
            raise OSError("cannot read\nthis")
        label = int(self.numbers[position])
        return Example(
            position, self.name(position), f"{position}.png", self.files[position], label, label
        )

    def name(self, position):
        return f"file {position}"

    def labels(self):
        return self.numbers


def files(count, bad=()):
    good = [encode(pixels(8, 8, seed=i), "PNG") for i in range(count)]
    damaged = {0: good[0][:-30], 1: None, 2: b""}
    return [damaged[i % 3] if i in bad else data for i, data in enumerate(good)]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_split_in_memory(num_threads):
    split = load_split(Files(files(250)), size=8, num_classes=250, num_threads=num_threads)
    assert len(split) == 250
    for i in (0, 99, 100, 249):
        np.testing.assert_array_equal(split.images[i], pixels(8, 8, seed=i))
    np.testing.assert_array_equal(split.labels, np.arange(250))
    np.testing.assert_array_equal(split.clean_labels, np.arange(250))
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_noisy_and_clean_labels():
    source = NoisySource(Files(files(3)), LabelNoise(np.roll(np.eye(3), 1, axis=1), seed=0))
    split = load_split(source, size=8, num_classes=3)
    np.testing.assert_array_equal(split.labels, [1, 2, 0])
    np.testing.assert_array_equal(split.clean_labels, [0, 1, 2])


@pytest.mark.parametrize(
    ("replace", "expected"), [(True, [0, 2, 2, 6, 6, 6, 6, 0]), (False, [0, 2, 6])]
)
def test_the_next_good_example_takes_the_place_of_a_bad_one(replace, expected):
    source = NoisySource(
        Files(files(8, bad=(1, 3, 4, 5, 7))), LabelNoise(np.roll(np.eye(8), 1, axis=1), seed=0)
    )
    bad_examples = BadExamples(5, replace=replace)
    split = load_split(source, size=8, num_classes=8, bad_examples=bad_examples)
    np.testing.assert_array_equal(split.clean_labels, expected)
    np.testing.assert_array_equal(split.labels, np.array(expected) + 1)
    for image, number in zip(split.images, expected, strict=True):
        np.testing.assert_array_equal(image, pixels(8, 8, seed=number))
    assert len(split.source) == len(expected)


def test_bad_training_examples_are_counted_and_named(caplog):
    source = Files(files(7, bad=(1, 3, 5)))
    load_split(source, size=8, num_classes=7, bad_examples=BadExamples(3))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "skipping bad example 1: file 1 (OSError: cannot read this)",
        "skipping bad example 2: file 3 (BadImageError: image file is truncated)",
        "skipping bad example 3: file 5 (BadImageError: an empty file)",
    ]


def test_too_many_bad_training_examples_end_the_run_with_the_list():
    source = Files(files(7, bad=(1, 3, 5)))
    with pytest.raises(DataError) as caught:
        load_split(source, size=8, num_classes=7, bad_examples=BadExamples(2))
    message = str(caught.value)
    assert message.startswith("3 training examples cannot be used, more than dataset.max_bad_exa")
    assert all(name in message for name in ("max_bad_examples=2: file 1 (", "file 3 (", "file 5 ("))
    assert "\n" not in message


def test_a_bad_example_counts_once(caplog):
    found = BadExamples(1)
    for _ in range(3):
        found.report([BadExample("a", "broken")])
    assert len(caplog.records) == 1
    with pytest.raises(DataError, match=r"2 training examples .*: a \(broken\); b \(gone\)\."):
        found.report([BadExample("b", "gone")])


def test_a_bad_test_example_is_an_error():
    with pytest.raises(DataError, match=r"file 5 cannot be evaluated \(BadImageError: an empty"):
        load_split(Files(files(7, bad=(5,))), size=8, num_classes=7)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label):
    source = Files(files(3), labels=np.array([0, label, 2]))
    with pytest.raises(DataError, match=f"file 1 has the label {label}: must lie in 0..2; correct"):
        load_split(source, size=8, num_classes=3, bad_examples=BadExamples(9))


def test_excluded_examples():
    split = load_split(
        Files(files(4)), size=8, num_classes=4, excluded=frozenset({"1.png", "3.png", "9.png"})
    )
    np.testing.assert_array_equal(split.labels, [0, 2])


def test_a_damaged_example_can_be_excluded():
    split = load_split(
        Files(files(7, bad=(5,))), size=8, num_classes=7, excluded=frozenset({"5.png"})
    )
    np.testing.assert_array_equal(split.labels, [0, 1, 2, 3, 4, 6])


def test_nothing_left():
    with pytest.raises(DataError, match="no example of the split can be used"):
        load_split(Files(files(1)), size=8, num_classes=4, excluded=frozenset({"0.png"}))


def test_blacklist(tmp_path):
    (tmp_path / "list.txt").write_text("36\nILSVRC2012_val_00000050.JPEG\n50000\n")
    assert read_exclude_file(tmp_path / "list.txt") == {
        "ILSVRC2012_val_00000036.JPEG",
        "ILSVRC2012_val_00000050.JPEG",
        "ILSVRC2012_val_00050000.JPEG",
    }
    (tmp_path / "list.txt").write_bytes("\ufeff36 37\r\n my cat.jpg \n\n".encode())
    assert read_exclude_file(tmp_path / "list.txt") == {
        "ILSVRC2012_val_00000036.JPEG",
        "ILSVRC2012_val_00000037.JPEG",
        "my cat.jpg",
    }
    with pytest.raises(UsageError, match=r"cannot be read .*: must be a text file"):
        read_exclude_file(tmp_path / "nowhere.txt")


def test_arrays_and_subsets():
    images = np.stack([pixels(4, 4, seed=i) for i in range(5)])
    source = ArraySource("mine", images, np.arange(5, dtype=np.int32))
    part = Subset(source, [4, 1])
    split = load_split(part, size=4, num_classes=5)
    np.testing.assert_array_equal(split.images, images[[4, 1]])
    np.testing.assert_array_equal(part.labels(), [4, 1])
    assert (len(part), part[0].index, part[1].name, part.name(1)) == (2, 4, "mine[1]", "mine[1]")
