"""Datasets by name, their validation, and the bundled digits."""

import dataclasses
import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rattn_jax.data import DATASETS, Dataset, Split, dataset_spec, load_dataset
from rattn_jax.errors import UsageError


def split(labels=(0, 1, 1), **images) -> Split:
    shape = images.get("shape", (len(labels), 4, 4, 3))
    return Split(np.zeros(shape, images.get("dtype", np.uint8)), np.array(labels, np.int32))


def test_specs():
    table = {
        name: (spec.num_classes, spec.image_shape, spec.num_train, spec.num_test)
        for name, spec in DATASETS.items()
    }
    assert table == {
        "cifar10": (10, (32, 32, 3), 50_000, 10_000),
        "cifar100": (100, (32, 32, 3), 50_000, 10_000),
        "digits": (10, (8, 8, 3), 1_437, 360),
    }
    assert dataset_spec("digits") is DATASETS["digits"]


@pytest.mark.parametrize("ask", [dataset_spec, load_dataset])
def test_unknown_dataset(ask):
    with pytest.raises(UsageError) as caught:
        ask("cifar-10")
    assert str(caught.value) == (
        "dataset 'cifar-10' is unknown: did you mean 'cifar10'? choose one of "
        "cifar10, cifar100, digits"
    )
    with pytest.raises(UsageError, match="'mnist' is unknown: choose one of"):
        ask("mnist")


@pytest.mark.parametrize(
    ("labels", "span"), [((0, 1, 2), "0..2"), ((-1, 0, 1), "-1..1"), ((7, 0, 1), "0..7")]
)
def test_labels_out_of_range(labels, span):
    good = split()
    dataset = Dataset("mine", ("a", "b"), train=good, test=good)
    assert dataset.num_classes == 2
    for name in ("train", "test"):
        with pytest.raises(UsageError, match=f"labels of {name} span {span}: must lie in 0..1"):
            dataclasses.replace(dataset, **{name: split(labels)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: split(dtype=np.float32), r"images are float32 \[3, 4, 4, 3\]: must be uint8"),
        (lambda: split(shape=(3, 4, 4)), r"images are uint8 \[3, 4, 4\]"),
        (lambda: split(shape=(3, 4, 4, 1)), r"images are uint8 \[3, 4, 4, 1\]"),
        (lambda: split(shape=(2, 4, 4, 3)), "2 images and 3 labels"),
        (lambda: split(labels=()), "0 images and 0 labels"),
        (lambda: Split(split().images, np.zeros(3, np.int64)), r"labels are int64 \[3\]"),
        (lambda: Split(split().images, np.zeros((3, 2), np.int32)), r"labels are int32 \[3, 2\]"),
    ],
)
def test_malformed_split(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_length_of_a_split():
    assert len(split()) == 3


def test_other_data_under_a_known_name(monkeypatch, caplog):
    """Other classes or sizes are refused; a subset is announced, for its errors mean less."""
    loaded = Dataset("digits", tuple("0123456789"), *[split(shape=(3, 8, 8, 3))] * 2)

    def pretend(dataset):
        spec = dataclasses.replace(DATASETS["digits"], load=lambda data_dir: dataset)
        monkeypatch.setitem(DATASETS, "digits", spec)

    pretend(loaded)
    assert load_dataset("digits") is loaded
    assert "the train split has 3 examples, the published dataset 1437" in caplog.text
    pretend(dataclasses.replace(loaded, class_names=("0", "1")))
    with pytest.raises(UsageError, match="digits in data_dir 'x' has 2 classes and train images"):
        load_dataset("digits", "x")
    pretend(dataclasses.replace(loaded, test=split()))
    with pytest.raises(UsageError, match=r"test images of \(4, 4, 3\): must be 10 and \(8, 8, 3\)"):
        load_dataset("digits", "x")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def test_digits_are_the_bundled_scans(digits):
    bundled = load_digits()
    # 0..16 becomes 0..255, rounded to the nearest; the one tie, 127.5, goes up.
    to_uint8 = np.floor(np.arange(17) * 255 / 16 + 0.5).astype(np.uint8)
    assert (to_uint8[0], to_uint8[8], to_uint8[16]) == (0, 128, 255)
    expected = sorted(
        (to_uint8[image.astype(int)].tobytes(), label)
        for image, label in zip(bundled.images, bundled.target, strict=True)
    )
    found = []
    for part in (digits.train, digits.test):
        assert part.images.shape == (len(part), 8, 8, 3)
        np.testing.assert_array_equal(part.images, part.images[..., :1].repeat(3, axis=-1))
        found += [
            (image[..., 0].tobytes(), label)
            for image, label in zip(part.images, part.labels, strict=True)
        ]
    assert sorted(found) == expected
    assert digits.class_names == tuple("0123456789")


def test_digits_split_is_stratified(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    train, test = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert np.all(np.abs(test - (train + test) / 5) < 1)


def test_digits_split_never_changes(digits):
    """Results on digits are compared between machines and years. Never update these."""
    arrays = {
        "train labels": digits.train.labels,
        "test labels": digits.test.labels,
        "test images": digits.test.images,
    }
    hashes = {
        name: hashlib.sha256(array.astype("<i4").tobytes()).hexdigest()[:16]
        for name, array in arrays.items()
    }
    assert hashes == {
        "train labels": "86ff49c779e2691b",
        "test labels": "839e3ddef9d9c1d8",
        "test images": "2b666bd3f5fe95bf",
    }
