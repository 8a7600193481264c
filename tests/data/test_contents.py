"""By what a run knows its data again."""

import dataclasses
import shutil

import numpy as np
import pytest

from rattn_jax.config.load import parse_config
from rattn_jax.data import contents, open_dataset
from rattn_jax.data.contents import changes, describe_data, digest, read_contents
from rattn_jax.data.dataset import ArraySource
from tests.data.test_folder import make_folder
from tests.tiny import make_config


def contents_of(folder):
    return read_contents(open_dataset(f"folder:{folder}"))


def test_the_place_does_not_matter(tmp_path, monkeypatch):
    before = contents_of(make_folder(tmp_path / "a"))
    assert list(before)[:2] == ["train/cat/0.jpg", "train/cat/1.PNG"]
    shutil.move(tmp_path / "a", tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert contents_of("b") == before
    assert digest(contents_of("b")) == digest(before)
    assert changes(before, before) == ""


def test_what_has_changed_is_told_class_by_class(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_END", 2)  # of a small folder all bytes are read
    folder = make_folder(tmp_path)
    before = contents_of(folder)
    (folder / "train/cat/new.png").write_bytes(b"123")
    (folder / "train/cat/0.jpg").unlink()
    (folder / "train/cat/2.webp").unlink()
    changed = bytearray((folder / "test/dog/1.PNG").read_bytes())
    changed[len(changed) // 2] ^= 1  # as long as before
    (folder / "test/dog/1.PNG").write_bytes(changed)
    now = contents_of(folder)
    assert changes(before, now) == (
        "1 image of test/dog changed, 2 images of train/cat removed, 1 image of train/cat added"
    )
    assert digest(before) != digest(now)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_swapped_labels_are_seen(tmp_path, parts):
    folder = make_folder(tmp_path, parts)
    before = contents_of(folder)
    root = folder / parts[0]
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (root / old).rename(root / new)
    expected = "3 images of train/cat changed, 3 images of train/dog changed"
    assert changes(before, contents_of(folder)) == expected


def test_of_a_large_folder_sizes_and_some_ends_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_NUM_READ", 3)
    monkeypatch.setattr(contents, "_END", 2)
    for name, text in (("a/1", "abcdef"), ("a/2", "abcdef"), ("b/3", "abcdef"), ("b/4", "abcdef")):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    before = contents_of(tmp_path)
    assert [len(numbers) for numbers in before.values()] == [2, 2, 1, 2]
    (tmp_path / "a/1.png").write_text("abXXef")
    (tmp_path / "b/3.png").write_text("XXXXXX")
    assert changes(before, contents_of(tmp_path)) == ""
    (tmp_path / "a/2.png").write_text("abcdeX")
    (tmp_path / "b/3.png").write_text("abcdefg")
    (tmp_path / "a/0.png").write_text("abc")  # then others are read, of which nothing is known
    assert changes(before, contents_of(tmp_path)) == (
        "1 image of train/a added, 1 image of train/a changed, 1 image of train/b changed"
    )


def test_many_classes_are_counted(tmp_path):
    before = {f"train/{name}/1.jpg": [1] for name in "abcde"}
    assert changes(before, {}) == (
        "1 image of train/a removed, 1 image of train/b removed, 1 image of train/c removed, "
        "5 in all"
    )


def test_sets_without_files_are_known_by_their_labels():
    digits = open_dataset("digits")
    before = read_contents(digits)
    assert read_contents(open_dataset("digits")) == before
    images = np.zeros((len(digits.test), 8, 8, 3), np.uint8)
    labels = digits.test.labels()[::-1]
    other = dataclasses.replace(digits, test=ArraySource("other", images, labels))
    assert changes(before, read_contents(other)) == "split test changed"


def test_a_link_to_nowhere_and_a_damaged_example_do_not_end_it(tmp_path):
    folder = make_folder(tmp_path)
    before = contents_of(folder)
    (folder / "train/cat/lost.png").symlink_to(tmp_path / "nowhere")
    assert changes(before, contents_of(folder)) == "1 image of train/cat added"

    class Damaged(ArraySource):
        def __getitem__(self, position):
            raise OSError(position)

    digits = open_dataset("digits")
    images = np.zeros((len(digits.test), 8, 8, 3), np.uint8)
    damaged = Damaged("other", images, digits.test.labels())
    other = read_contents(dataclasses.replace(digits, test=damaged))
    assert changes(read_contents(digits), other) == "split test changed"


def test_files_that_belong_to_the_data_are_known_by_what_they_say(tmp_path):
    dataset, config = open_dataset("digits"), make_config()

    def describe(exclude, matrix):
        (tmp_path / "list.txt").write_text(exclude)
        np.savetxt(tmp_path / "matrix.csv", matrix)
        config.dataset.test_exclude_file = str(tmp_path / "list.txt")
        config.dataset.label_noise.matrix = str(tmp_path / "matrix.csv")
        return describe_data(parse_config(config), dataset, {})

    first = describe("a.jpg\nb.jpg", np.eye(10))
    assert describe("b.jpg\na.jpg\n", np.eye(10)) == first
    second = describe("a.jpg", np.eye(10)[::-1])
    keys = {key for key in first if first[key] != second[key]}
    assert keys == {"test_exclude_file", "label_noise_matrix"}
