"""Datasets by name, and the bundled digits."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rattn_jax.data import KNOWN, dataset_spec, open_dataset
from rattn_jax.errors import UsageError
from tests.data.images import Whole, load_dataset


def test_specs_of_what_is_known_need_no_data():
    table = {
        name: (spec.num_classes, spec.image_size, spec.num_train, spec.num_test)
        for name, spec in KNOWN.items()
    }
    assert table == {
        "cifar10": (10, 32, 50_000, 10_000),
        "cifar100": (100, 32, 50_000, 10_000),
        "digits": (10, 8, 1_437, 360),
        "imagenet2012": (1_000, 224, 1_281_167, 50_000),
    }
    assert dataset_spec("imagenet2012", "/nonexistent") is KNOWN["imagenet2012"]


@pytest.mark.parametrize("ask", [dataset_spec, open_dataset])
def test_unknown_dataset(ask, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        ask("cifar-10", str(tmp_path))


def test_a_subset_under_a_known_name_is_announced(cifar10_archive, tmp_path, caplog):
    """A trial with a part of the data is legitimate, but its errors mean less."""
    cifar10_archive.put(tmp_path / "downloads")
    open_dataset("cifar10", str(tmp_path))
    assert "the train split has 20 examples, the published dataset 50000" in caplog.text
    caplog.clear()
    open_dataset("digits")
    assert not caplog.records


def test_description_for_reports():
    assert open_dataset("digits").describe() == {
        "class_names": list("0123456789"),
        "num_train": 1437,
        "num_test": 360,
    }


@pytest.fixture(scope="module")
def digits() -> Whole:
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
