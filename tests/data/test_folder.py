"""One's own images in class folders."""

import shutil
import unicodedata
from collections import Counter
from pathlib import PurePath

import numpy as np
import pytest

from rattn_jax.config.schema import DatasetConfig, RunConfig
from rattn_jax.data import open_dataset
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.decoding import FORMATS
from rattn_jax.data.read import load_split
from rattn_jax.errors import UsageError
from tests.data.images import encode, on_its_side, pixels


def make_folder(root, parts=("train", "test"), classes=("cat", "dog"), count=3):
    for part in parts:
        for number, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                kind = ("jpg", "PNG", "webp")[i % 3]
                image = pixels(seed=10 * number + i)
                (folder / f"{i}.{kind}").write_bytes(
                    encode(image, {"jpg": "JPEG"}.get(kind, kind.upper()))
                )
    return root


def refuse(root, **keywords):
    with pytest.raises(UsageError) as caught:
        open_dataset(f"folder:{root}", **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_train_and_test(tmp_path, test):
    dataset = open_dataset(f"folder:{make_folder(tmp_path, ('train', test))}")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.test), dataset.image_size) == (6, 6, None)
    np.testing.assert_array_equal(dataset.train.labels(), [0, 0, 0, 1, 1, 1])
    example = dataset.train[4]
    assert (example.index, example.label, example.file_name) == (4, 1, "1.PNG")
    assert (example.name, example.path) == (str(tmp_path / "train/dog/1.PNG"), "dog/1.PNG")
    assert example.image == (tmp_path / "train/dog/1.PNG").read_bytes()


def test_a_photo_that_was_stored_on_its_side_is_turned_upright(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/cat/0.jpg").write_bytes(on_its_side())
    split = load_split(open_dataset(f"folder:{tmp_path}").train, size=8, num_classes=2)
    np.testing.assert_array_equal(split.images[0], np.rot90(pixels(8, 8), -1))


def test_what_is_no_image_is_ignored(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/cat/notes.txt").touch()
    (tmp_path / "train/cat/.0.jpg").touch()
    (tmp_path / "train/.cache").mkdir()
    assert len(open_dataset(f"folder:{tmp_path}").train) == 6


@pytest.mark.parametrize("parts", [("",), ("train",)])
def test_a_part_of_each_class_is_held_out(tmp_path, parts):
    make_folder(tmp_path, parts, count=10)
    first, second = (
        open_dataset(f"folder:{tmp_path}", test_fraction=0.2, hold_out_by="position")
        for _ in range(2)
    )
    np.testing.assert_array_equal(np.bincount(first.train.labels()), [8, 8])
    np.testing.assert_array_equal(np.bincount(first.test.labels()), [2, 2])
    names = [[e.name for e in source] for source in (first.train, first.test, second.test)]
    assert not set(names[0]) & set(names[1])
    assert len({*names[0], *names[1]}) == 20
    assert names[1] == names[2]


def parts_of(dataset):
    return [{(e.label, e.file_name) for e in part} for part in (dataset.train, dataset.test)]


def test_an_image_that_is_added_moves_no_other_between_training_and_test(tmp_path):
    make_folder(tmp_path / "a", ("",), count=20)
    before = parts_of(open_dataset(f"folder:{tmp_path / 'a'}", test_fraction=0.2))
    (tmp_path / "a").rename(tmp_path / "b")
    for name in ("00.png", "9x.png"):
        (tmp_path / "b/cat" / name).write_bytes(encode(pixels(), "PNG"))
    after = open_dataset(f"folder:{tmp_path / 'b'}", test_fraction=0.2)
    assert all(then <= now for then, now in zip(before, parts_of(after), strict=True))
    assert len(after.name_hashes) == len(after.train)


def test_files_of_one_name_are_held_out_each_by_itself(tmp_path):
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        for name in range(50):
            (tmp_path / f"{number}/{name}.jpg").touch()
    now, before = (
        Counter(PurePath(test.name(i)).name for i in range(len(test)))
        for test in (
            open_dataset(f"folder:{tmp_path}", hold_out_by=by).test for by in ("path", "name")
        )
    )
    assert now.total() == pytest.approx(100, abs=30)  # its standard deviation is 9.5
    assert max(now.values()) < 10
    assert {*before.values()} == {20}, "as runs of before go on"


def test_test_part_may_lack_a_class_only_if_it_is_said(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "test/bird").mkdir()
    assert "test has the class 'bird', which" in refuse(tmp_path)


def test_class_without_training_images(tmp_path):
    make_folder(tmp_path)
    for file in (tmp_path / "train/dog").iterdir():
        file.rename(file.with_suffix(".heic"))
    message = refuse(tmp_path)
    assert message.startswith(f"class folder {tmp_path / 'train/dog'} has no image (left out 3: 3 ")
    assert "must hold files of the formats JPEG, PNG, WEBP, GIF, BMP" in message


@pytest.mark.parametrize("has_folder", [True, False])
def test_class_without_test_images_is_said(tmp_path, has_folder):
    make_folder(tmp_path, classes=("cat", "dog", "rare"))
    shutil.rmtree(tmp_path / "test/rare")
    if has_folder:
        (tmp_path / "test/rare").mkdir()
    dataset = open_dataset(f"folder:{tmp_path}")
    assert (dataset.num_classes, len(dataset.train), len(dataset.test)) == (3, 9, 6)
    assert dataset.notes == ("1 of the classes have no test images: rare",)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("Training", "Testing"),
        ("TRAIN", "DEV"),
        ("train_set", "val-images"),
        ("trainset", "Development"),
        ("train data", "evaluation"),
    ],
)
def test_usual_names_of_the_parts(tmp_path, train, test):
    make_folder(tmp_path, (train, test))
    dataset = open_dataset(f"folder:{tmp_path}")
    assert (len(dataset.train), len(dataset.test), dataset.notes) == (6, 6, ())
    assert f"/{test}/" in dataset.test.name(0)


def test_the_test_part_is_evaluated_and_the_validation_part_is_said_to_be_left(tmp_path):
    make_folder(tmp_path, ("train", "valid", "test"))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/1.xml").touch()
    dataset = open_dataset(f"folder:{tmp_path}")
    assert "/test/" in dataset.test.name(0)
    expected = "6 images in folders beside the parts are not read: annotations, valid"
    assert dataset.notes == (expected,)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "test", "Testing"), "has the folders Testing, test, of which only one can be"),
        (("train", "val", "valid"), "has the folders val, valid, of which only one can be read"),
        (("train", "Train", "test"), "has the folders Train, train, of which only one can be read"),
        (("seg_train", "seg_test"), "has the folders seg_test, seg_train, which may be parts or"),
        (("train", "my_test"), ""),
        (
            ("cat/train", "cat/test", "dog/train", "dog/test"),
            "cat has folders for training and for test images: they must",
        ),
    ],
)
def test_layouts_that_can_be_meant_in_several_ways(tmp_path, parts, message):
    make_folder(tmp_path, parts)
    if message:
        assert message in refuse(tmp_path)
    else:
        beside = "6 images in folders beside the parts are not read: my_test"
        assert beside in open_dataset(f"folder:{tmp_path}").notes


@pytest.mark.parametrize("flat", ["test", "val"])
def test_a_part_without_class_folders(tmp_path, flat):
    make_folder(tmp_path, ("train",))
    (tmp_path / flat).mkdir()
    note = f"{tmp_path / flat} is not read: it has neither images nor class folders"
    assert note in open_dataset(f"folder:{tmp_path}").notes
    (tmp_path / flat / "1.png").write_bytes(encode(pixels(), "PNG"))
    assert f"{tmp_path / flat} has images and no class folders: sort them" in refuse(tmp_path)


def test_links_to_folders_above_are_no_classes(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/up").symlink_to("..")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "train/cat/up").symlink_to("..")
    dataset = open_dataset(f"folder:{tmp_path}")
    assert (dataset.class_names, len(dataset.train)) == (("cat", "dog"), 6)
    assert dataset.notes == (
        "left out 3: 2 linked to a folder above (such as again), "
        "1 linked to what is read already, or lies above (such as up)",
    )


def test_a_link_that_makes_one_folder_both_parts_is_refused(tmp_path):
    make_folder(tmp_path, ("train",))
    (tmp_path / "val").symlink_to("train")
    assert f"{tmp_path}/val and {tmp_path}/train are one folder: test images" in refuse(tmp_path)


def test_a_class_that_is_called_train(tmp_path):
    make_folder(tmp_path, ("",), classes=("bus", "car", "train"))
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("bus", "car", "train")
    assert f"{tmp_path / 'train'} has no class folders, and is taken for a class" in dataset.notes


def test_everything_that_is_left_out_is_counted(tmp_path):
    make_folder(tmp_path)
    for name in ("1.heic", "2.HEIC", "Thumbs.db", "notes", ".DS_Store"):
        (tmp_path / "train/cat" / name).touch()
    (tmp_path / "train/loose.jpg").touch()
    (tmp_path / "test/__MACOSX").mkdir()
    (tmp_path / "train/dog/.ipynb_checkpoints").mkdir()
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.test)) == (6, 6)
    expected = (
        "left out 8: 3 hidden (such as __MACOSX), 2 .heic (such as 1.heic), 1 beside class "
        "folders (such as loose.jpg), 1 .db (such as Thumbs.db), 1 without suffix (such as notes)"
    )
    assert sorted(dataset.notes[0].split(", ")) == sorted(expected.split(", "))
    first, second = dataset.summary().split("\n")
    assert first == f"folder:{tmp_path}: 6 training and 6 test images of 2 classes: cat, dog"
    assert second == f"  {dataset.notes[0]}"


def test_every_suffix_is_read_in_folders_below_a_class_too(tmp_path):
    make_folder(tmp_path)
    suffixes = [suffix for suffixes in FORMATS.values() for suffix in suffixes]
    below = tmp_path / "train/cat/2024/May"
    below.mkdir(parents=True)
    for suffix in (*suffixes, *(suffix.upper() for suffix in suffixes)):
        (below / f"1{suffix}").touch()
    dataset = open_dataset(f"folder:{tmp_path}")
    assert len(dataset.train) == 6 + 2 * len(suffixes)
    assert dataset.notes == (
        f"{2 * len(suffixes)} of them are in folders below those of the classes",
        "of an animation the first frame is read",
    )
    before = open_dataset(f"folder:{tmp_path}", all_images=False)
    assert len(before.train) == 6


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_a_run_of_before_reads_the_files_that_it_had(tmp_path, test):
    """Whatever would be read or refused now: other suffixes, other folders, names of parts."""
    make_folder(tmp_path, ("train", test))
    expected = [open_dataset(f"folder:{tmp_path}").train.name(i) for i in range(6)]
    for path in ("train/cat/1.bmp", "train/dog/below/1.jpg", "Testing/cat/1.jpg", "train/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    config = RunConfig(dataset=DatasetConfig(f"folder:{tmp_path}", all_images=False))
    train = build_dataset(config).train
    assert [train.name(i) for i in range(len(train))] == expected
    assert build_spec(config).num_train == 6


def test_names_that_differ_only_in_their_unicode_form_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make_folder(tmp_path, ("train",), classes=(composed, "tea"))
    make_folder(tmp_path, ("train",), classes=(apart,), count=2)
    make_folder(tmp_path, ("test",), classes=(apart, "tea"))
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == (composed, "tea")
    np.testing.assert_array_equal(dataset.train.labels(), [0] * 5 + [1] * 3)
    note = f"folders whose names differ in Unicode's form alone are one class: {composed}"
    assert dataset.notes == (note,)


def test_folders_that_are_no_dataset(tmp_path):
    assert "there is no such folder; correct the path" in refuse(tmp_path / "nowhere")
    assert "has 0 class folders: must be at least 2" in refuse(tmp_path)
    make_folder(tmp_path / "a", ("",), classes=("cat",))
    assert "has 1 class folders: must be at least 2" in refuse(tmp_path / "a")
    make_folder(tmp_path / "c", ("outer/train", "outer/test"))
    assert refuse(tmp_path / "c").endswith(f", or is {tmp_path / 'c/outer'} meant?")
    make_folder(tmp_path / "b", ("test", "cat"))
    assert "has a folder test but none called train" in refuse(tmp_path / "b")


def test_a_single_image_of_each_class_leaves_nothing_to_test_on(tmp_path):
    make_folder(tmp_path, ("",), count=1)
    assert "has 2 training and 0 test images" in refuse(tmp_path)
