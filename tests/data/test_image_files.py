"""Which files are found below a folder, and what is said of the others."""

import os
from pathlib import Path

import pytest
from etils import epath

from rattn_jax.config.paths import path_of
from rattn_jax.data import open_dataset
from rattn_jax.data.contents import read_contents
from rattn_jax.data.decoding import FORMATS
from rattn_jax.data.image_files import LeftOut, find_images, images_below
from rattn_jax.data.image_layout import has_folders
from rattn_jax.data.part_files import find_parts, list_files
from rattn_jax.data.places import name_of
from rattn_jax.errors import UsageError
from tests.data.images import encode, pixels, write_tar


def test_documentation_names_every_format_and_suffix():
    lines = (Path(__file__).parents[2] / "docs/own-images.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("- **Formats:**"))
    text = " ".join(lines[start : start + 4])
    for name, suffixes in FORMATS.items():
        assert name.lower() in text.lower().replace("jpeg 2000", "jpeg2000")
        assert len(suffixes) == 1 or all(suffix in text for suffix in suffixes)


def found(folder):
    """Relative paths of the images, and the line about the rest."""
    left_out = LeftOut()
    images = images_below(epath.Path(folder), left_out)
    return [str(image.relative_to(folder)) for image in images], str(left_out)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_hidden_folders_and_those_of_systems_are_left_out(tmp_path):
    touch(tmp_path, "1.png", "sub/2.JPG", "sub/deep/er/3.tiff")
    touch(tmp_path, ".ipynb_checkpoints/1.png", "sub/.Trash-0/2.png", "@eaDir/1.jpg", "sub/._2.JPG")
    names, line = found(tmp_path)
    assert names == ["1.png", "sub/2.JPG", "sub/deep/er/3.tiff"]
    assert line == "left out 4: 4 hidden (such as .ipynb_checkpoints)"


def test_links_that_go_round_end(tmp_path):
    top = tmp_path / "top"
    touch(tmp_path, "beside.png")
    touch(top, "1.png", "a/2.png", "b/3.png")
    (top / "a/above").symlink_to(tmp_path)  # where the folder itself lies
    (top / "a/top").symlink_to(top)
    (top / "a/to_b").symlink_to(top / "b")
    (top / "b/to_a").symlink_to(top / "a")
    (top / "itself").symlink_to("itself")
    names, line = found(top)
    assert names == ["1.png", "a/2.png", "a/to_b/3.png"]  # each file once
    assert line == (
        "left out 5: 4 linked to what is read already, or lies above (such as above), "
        "1 without suffix (such as itself)"
    )


def test_folders_called_like_files_are_folders(tmp_path):
    touch(tmp_path, "1.png", "day.jpg/2.png", "day.jpg/none.PNG/notes.txt")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "day.jpg")
    assert found(tmp_path) == (
        ["1.png", "day.jpg/2.png"],
        "left out 2: 1 .txt (such as notes.txt), "
        "1 linked to what is read already, or lies above (such as linked.jpg)",
    )
    assert [image.name for image in find_images([str(tmp_path / "day.jpg")], LeftOut())] == [
        "2.png"
    ]
    assert has_folders(epath.Path(tmp_path / "day.jpg"))
    touch(tmp_path, "a.csv", "b.csv/part-0.csv")
    tables = list_files(epath.Path(tmp_path), [".csv"])
    assert [table.name for table in tables] == ["a.csv"]


def test_links_to_images_elsewhere_are_followed(tmp_path):
    touch(tmp_path, "disk/x/1.png", "disk/2.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/x").symlink_to(tmp_path / "disk/x")
    (tmp_path / "photos/2.png").symlink_to(tmp_path / "disk/2.png")
    assert found(tmp_path / "photos") == (["2.png", "x/1.png"], "left out 0: ")


def test_many_kinds_are_summed_up(tmp_path):
    touch(tmp_path, *(f"{i}.{i}" for i in range(10)), "a.heic", "b.heic", "c.png")
    line = found(tmp_path)[1]
    assert line.startswith("left out 12: 2 .heic (such as a.heic), 1 .0 (such as 0.0), ")
    assert line.endswith(", 5 of other kinds")


# What shells, epath, globbing, URLs or formats of text take for something else.
ODD = (
    "cat~",
    "~",
    "~root",
    "$HOME",
    "%41",
    "%s",
    "[x]",
    "a*",
    "b?",
    "{1..3}",
    "a{b,c}",
    "gs:",
    "#1",
)


@pytest.mark.parametrize("above", ["cat~", "~", "~root", "{1..3}", "[x]*"])
def test_every_name_means_itself(tmp_path, monkeypatch, above):
    monkeypatch.chdir(tmp_path)
    image = encode(pixels(8, 8), "PNG")
    for name in ODD:
        touch(tmp_path / above, *(f"images/{name}/{file}.png" for file in ODD), f"{name}.png~")
    for file in Path(above).rglob("*.png"):
        file.write_bytes(image)
    for place in (f"./{above}/images", str(tmp_path / above / "images")):
        dataset = open_dataset(name_of(place), test_fraction=0.5)
        assert dataset.class_names == tuple(sorted(ODD))
        assert len(dataset.files) == len(ODD) ** 2
        assert min(size for size, *_ in read_contents(dataset).values()) > 0
        assert dataset.train[0].image == image
    names, line = found(tmp_path / above)
    assert len(names) == len(ODD) ** 2
    assert line == f"left out {len(ODD)}: {len(ODD)} .png~ (such as #1.png~)"
    shards = write_tar(tmp_path / above / "train-0.tar", {"1.png": image, "1.cls": b"1"})
    assert find_parts(f"./{above}/train-*.tar", [".tar"], "shard").train == [
        epath.Path(above) / shards.name
    ]


def test_a_tilde_at_the_beginning_is_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(path_of("~/photos")) == "/home/me/photos"
    assert str(path_of("./~/photos")) == "~/photos"


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    def listdir(_):
        raise PermissionError(13, "Permission denied")

    folder = epath.Path(tmp_path)
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\): allow it"):
        images_below(folder, LeftOut())


def test_files_are_taken_by_name_and_from_folders(tmp_path):
    touch(tmp_path, "notes.txt", "folder/1.png", "none/.1.png")
    paths = [str(tmp_path / name) for name in ("notes.txt", "folder")]
    images = find_images(paths, LeftOut())
    assert [image.name for image in images] == ["notes.txt", "1.png"]
    with pytest.raises(UsageError, match=r"none has no image \(left out 1: 1 hidden .*\): must"):
        find_images([str(tmp_path / "none")], LeftOut())
