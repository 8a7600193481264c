"""Any prepared TFDS set."""

import json
import shutil

import numpy as np
import pytest

from rattn_jax.data import dataset_spec, open_dataset
from rattn_jax.data.read import load_split
from rattn_jax.errors import UsageError
from tests.data.images import encode, on_its_side, pixels, prepare

ROWS = [(encode(pixels(seed=i)), i % 3) for i in range(9)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    prepare(root, train=ROWS, test=ROWS[:3])
    prepare(root, version="1.1.0", train=ROWS[:6], validation=ROWS[:3])
    prepare(root, "squares", square=8, train=[(encode(pixels(8, 8), "PNG"), 1)] * 20)
    prepare(root, "unlabelled", label=False, train=ROWS)
    return root


def refuse(name, root, **keywords):
    with pytest.raises(UsageError) as caught:
        open_dataset(name, str(root), **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples_as_they_were_prepared(prepared):
    dataset = open_dataset("tiny:1.0.0", str(prepared))
    assert (dataset.class_names, dataset.image_size) == (("ant", "bee", "cat"), None)
    assert dataset.describe()["version"] == "tiny:1.0.0"
    assert (len(dataset.train), len(dataset.test)) == (9, 3)
    seen = {}
    for position in range(9):
        example = dataset.train[position]
        number = int(example.file_name.removesuffix(".JPEG"))
        assert (example.index, example.image, example.label) == (position, *ROWS[number])
        assert example.name == f"tiny/train[{position}] {number}.JPEG"
        seen[number] = example.label
    assert len(seen) == 9
    np.testing.assert_array_equal(dataset.train.labels(), [e.label for e in dataset.train])


def test_images_are_not_turned(tmp_path):
    """TFDS's own readers leave the metadata out."""
    prepare(tmp_path, train=[(on_its_side(), 0)], test=[(on_its_side(), 0)])
    split = load_split(open_dataset("tiny", str(tmp_path)).train, size=8, num_classes=3)
    np.testing.assert_array_equal(split.images[0], pixels(8, 8))


def test_newest_version_and_its_validation_split(prepared):
    dataset = open_dataset("tiny", str(prepared))
    assert (len(dataset.train), len(dataset.test)) == (6, 3)
    assert dataset.test[0].name.startswith("tiny/validation[0]")
    assert dataset.version == "tiny:1.1.0"
    spec = dataset_spec("tiny", str(prepared))
    assert (spec.num_classes, spec.image_size, spec.num_train, spec.num_test) == (3, None, 6, 3)


def test_test_images_are_never_those_of_the_training_split(prepared):
    message = refuse("tiny", prepared, train_split="validation", test_split="validation")
    assert message.startswith("dataset.test_split='validation' is dataset.train_split as well: ")
    message = refuse("tiny", prepared, train_split="validation")  # of whose 3 none can be held out
    assert "has 3 training and 0 test images" in message


def test_set_of_squares_without_a_test_split(prepared):
    dataset = open_dataset("squares", str(prepared), test_fraction=0.25)
    assert (dataset.image_size, len(dataset.train), len(dataset.test)) == (8, 15, 5)


def test_splits_by_name(prepared):
    dataset = open_dataset("tiny:1.0.0", str(prepared), train_split="test", test_split="train")
    assert (len(dataset.train), len(dataset.test)) == (3, 9)
    message = refuse("tiny", prepared, test_split="test")
    assert "has no split 'test': choose one of train, validation" in message


def test_what_is_not_prepared(prepared, tmp_path):
    message = refuse("tiny:2.0.0", prepared)
    assert "dataset.name='tiny:2.0.0' is not prepared in data_dir" in message
    assert "only tiny/1.0.0, tiny/1.1.0 is; cifar10, cifar100 and digits need no" in message
    assert "preparation; prepare it with tfds build tiny:2.0.0" in message
    message = refuse("cifar-10", tmp_path)
    assert "nothing under this name is; did you mean 'cifar10'? " in message
    assert "nothing under this name is; " in refuse("imagenet2012", tmp_path / "nowhere")
    (root := tmp_path / "[x]*").symlink_to(prepared)  # every character of a path means itself
    assert "only tiny/1.0.0, tiny/1.1.0 is;" in refuse("tiny:2.0.0", root)
    assert len(open_dataset("tiny", str(root)).train) == 6


def test_interrupted_preparation_counts_as_none(prepared, tmp_path):
    shutil.copytree(prepared / "tiny/1.0.0", tmp_path / "tiny/incomplete.ABCDEF_1.0.0")
    (tmp_path / "tiny/incomplete.ABCDEF_1.0.0/dataset_info.json").unlink()
    assert "is not prepared in data_dir" in refuse("tiny", tmp_path)


def test_set_without_class_labels(prepared):
    message = refuse("unlabelled", prepared)
    assert "has the features file_name, image: needs an image and a class label" in message


def change(folder, **fields):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: change(folder, fileFormat="tfrecord"), "is prepared as tfrecord: must be"),
        (lambda folder: (folder / "dataset_info.json").unlink(), ""),
        (lambda folder: (folder / "features.json").write_text("{"), ""),
        (lambda folder: next(folder.glob("*-train.*")).unlink(), "cannot read the prepared folder"),
        (
            lambda folder: next(folder.glob("*-train.*")).write_bytes(b"x" * 70_000),
            "cannot read the prepared folder",
        ),
    ],
)
def test_damaged_folder(prepared, tmp_path, damage, message):
    shutil.copytree(prepared / "tiny/1.0.0", tmp_path / "tiny/1.0.0")
    damage(tmp_path / "tiny/1.0.0")
    assert message in refuse("tiny", tmp_path)


def test_known_name_with_other_classes(tmp_path):
    prepare(tmp_path, "imagenet2012", train=ROWS, validation=ROWS)
    assert "imagenet2012 in data_dir" in (message := refuse("imagenet2012", tmp_path))
    assert "has 3 classes: must be 1000; choose another data_dir" in message
