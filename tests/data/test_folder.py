"""One's own images in class folders."""

import numpy as np
import pytest
from PIL import Image

from rattn_jax.data import open_dataset
from rattn_jax.data.read import load_split
from rattn_jax.errors import UsageError
from tests.data.images import encode, pixels


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
    assert example.name == str(tmp_path / "train/dog/1.PNG")
    assert example.image == (tmp_path / "train/dog/1.PNG").read_bytes()


def test_a_photo_that_was_stored_on_its_side_is_turned_upright(tmp_path):
    make_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be upright
    image = pixels(height=40, width=40)
    (tmp_path / "train/cat/0.jpg").write_bytes(encode(image, "PNG", exif=exif))
    split = load_split(open_dataset(f"folder:{tmp_path}").train, size=40, num_classes=2)
    np.testing.assert_array_equal(split.images[0], np.rot90(image, -1))


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
        open_dataset(f"folder:{tmp_path}", test_fraction=0.2, hold_out_by_name=False)
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


def test_test_part_may_lack_a_class_only_if_it_is_said(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "test/bird").mkdir()
    assert "test has the class 'bird', which" in refuse(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_empty_class_folder(tmp_path, part):
    make_folder(tmp_path)
    for file in (tmp_path / part / "dog").iterdir():
        file.unlink()
    assert f"class folder {tmp_path / part / 'dog'} has no image: must hold" in refuse(tmp_path)


def test_folders_that_are_no_dataset(tmp_path):
    assert "there is no such folder; correct the path" in refuse(tmp_path / "nowhere")
    assert "has 0 class folders: must be at least 2" in refuse(tmp_path)
    make_folder(tmp_path / "a", ("",), classes=("cat",))
    assert "has 1 class folders: must be at least 2" in refuse(tmp_path / "a")
    make_folder(tmp_path / "b", ("test", "cat"))
    assert "has a folder test but none called train" in refuse(tmp_path / "b")


def test_a_single_image_of_each_class_leaves_nothing_to_test_on(tmp_path):
    make_folder(tmp_path, ("",), count=1)
    assert "has 2 training and 0 test images" in refuse(tmp_path)
