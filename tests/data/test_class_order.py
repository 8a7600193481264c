"""A stated order of the classes."""

import dataclasses

import numpy as np
import pytest

from rattn_jax.config.load import as_before
from rattn_jax.config.schema import DatasetConfig, RunConfig
from rattn_jax.data import open_dataset
from rattn_jax.data.catalog import build_dataset
from rattn_jax.data.dataset import ArraySource, Relabelled
from rattn_jax.errors import UsageError
from rattn_jax.runs.identity import check_same_config
from tests.data.test_folder import make_folder
from tests.data.test_shards import put_shards


def names_of(dataset, source):
    return [dataset.class_names[label] for label in source.labels()]


def test_classes_are_in_the_stated_order(tmp_path):
    place = f"folder:{make_folder(tmp_path)}"
    plain, stated = (open_dataset(place, classes=classes) for classes in (None, ("dog", "cat")))
    assert stated.class_names == ("dog", "cat")
    for before, now in ((plain.train, stated.train), (plain.test, stated.test)):
        assert names_of(plain, before) == names_of(stated, now)
        np.testing.assert_array_equal(now.labels(), [example.label for example in now])
        assert [e.name for e in now] == [e.name for e in before], "data and order are the same"
    assert (stated.train[0].clean_label, stated.train.name(0)) == (1, plain.train.name(0))


def test_the_order_does_not_move_examples_between_training_and_test(tmp_path):
    place = f"folder:{make_folder(tmp_path, ('',), count=20)}"
    for by in ("path", "name", "position"):
        tests = [
            {example.name for example in open_dataset(place, classes=c, hold_out_by=by).test}
            for c in ((), ("dog", "cat"))
        ]
        assert tests[0] == tests[1]


def test_a_file_beside_the_data_states_the_order(tmp_path):
    place = f"folder:{make_folder(tmp_path)}"
    (tmp_path / "classes.txt").write_text("\ufeffdog\n\n cat \n")
    dataset = open_dataset(place)
    assert (dataset.class_names, dataset.notes) == (("dog", "cat"), ())
    assert open_dataset(place, classes=("cat", "dog")).class_names == ("cat", "dog")
    assert open_dataset(place, classes=()).class_names == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("dog\nbird\n")
    with pytest.raises(UsageError, match=rf"{tmp_path}/classes.txt states 'bird', which has no im"):
        open_dataset(place)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_file_of_classes_in_a_part_is_refused(tmp_path, part):
    make_folder(tmp_path)
    (tmp_path / part / "classes.txt").write_text("dog\ncat\n")
    message = f"{tmp_path}/{part}/classes.txt is not read: .* in {tmp_path}/classes.txt; move it th"
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)
    (tmp_path / part / "classes.txt").rename(tmp_path / "classes.txt")
    assert open_dataset(f"folder:{tmp_path}").class_names == ("dog", "cat")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("dog",), "dataset.classes lacks 'cat': must state each class of folder:"),
        (("dog", "cat", "bird"), "dataset.classes states 'bird', which has no images: must"),
        (("dog", "bird"), "states 'bird', which has no images and lacks 'cat': must"),
        (("dog", "cat", "cat"), "dataset.classes states 'cat' twice: must"),
    ],
)
def test_an_order_that_does_not_fit(tmp_path, classes, message):
    make_folder(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(f"folder:{tmp_path}", classes=classes)
    assert "\n" not in str(caught.value)


def test_a_file_of_classes_that_is_no_text(tmp_path):
    (make_folder(tmp_path) / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"classes.txt cannot be read \(.* must be a text file"):
        open_dataset(f"folder:{tmp_path}")


def test_classes_that_are_numbers_get_names(tmp_path):
    put_shards(tmp_path)
    (tmp_path / "classes.txt").write_text("zebra\nant\nbee\n")
    for place in (tmp_path, f"{tmp_path}/train-{{000..002}}.tar"):
        dataset = open_dataset(f"shards:{place}")
        assert dataset.class_names == ("zebra", "ant", "bee")
        np.testing.assert_array_equal(dataset.test.labels(), [0, 1, 2])
    digits = open_dataset("digits", classes=tuple(range(9, -1, -1)))
    assert digits.class_names[:2] == ("9", "8")
    assert digits.train[0].label == 9 - open_dataset("digits").train[0].label


def test_folders_that_are_numbers_are_in_alphabetical_order_which_is_said(tmp_path):
    make_folder(tmp_path, classes=[str(number) for number in range(12)], count=1)
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names[:3] == ("0", "1", "10")
    assert any("classes are in alphabetical order: dataset.classes" in n for n in dataset.notes)
    stated = open_dataset(f"folder:{tmp_path}", classes=tuple(map(str, range(12))))
    assert stated.class_names[10] == "10"
    assert not any("alphabetical" in note for note in stated.notes)


def test_a_run_of_before_keeps_its_order(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    now = RunConfig(dataset=DatasetConfig(f"folder:{tmp_path}"))
    record = now.to_dict()
    del record["dataset"]["classes"]
    config, changed = as_before(record, now)
    assert changed == {"dataset.classes": ()}
    assert build_dataset(config).class_names == ("cat", "dog")
    check_same_config(tmp_path, record, config.to_dict(), {})
    with pytest.raises(UsageError, match=r"holds a run with dataset.classes=\[\], and this config"):
        check_same_config(tmp_path, record, now.to_dict(), {})
    other = dataclasses.replace(now, dataset=DatasetConfig(now.dataset.name, classes=("a", "b")))
    with pytest.raises(UsageError, match="classes"):
        check_same_config(tmp_path, now.to_dict(), other.to_dict(), {})


def test_labels_out_of_range_stay_so():
    source = ArraySource("x", np.zeros((3, 1, 1, 3), np.uint8), np.array([1, -1, 2], np.int32))
    labels = Relabelled(source, np.array([1, 0], np.int32)).labels()
    np.testing.assert_array_equal(labels, [0, -1, 2])
