"""One's own images in tar files of WebDataset."""

import gzip
import json
import tarfile
from collections import Counter
from pathlib import PurePath

import numpy as np
import pytest

from rattn_jax.data import open_dataset
from rattn_jax.data.contents import changes, read_contents
from rattn_jax.data.read import load_split
from rattn_jax.errors import UsageError
from tests.data.images import encode, on_its_side, pixels, write_tar


def image(number):
    return encode(pixels(8, 8, seed=number), "PNG")


def samples(numbers, label=lambda n: {"cls": str(n % 3)}):
    """Members of a shard: images, and what `label` makes of their numbers, by suffixes."""
    members = {}
    for n in numbers:
        members[f"{n:04d}.png"] = image(n)
        members |= {f"{n:04d}.{kind}": text.encode() for kind, text in label(n).items()}
    return members


def put_shards(folder, **options):
    for i in range(3):
        write_tar(folder / f"train-{i:03d}.tar", samples(range(4 * i, 4 * i + 4), **options))
    write_tar(folder / "test-000.tar", samples(range(12, 15), **options))
    return folder


def refuse(place, **options):
    with pytest.raises(UsageError) as caught:
        open_dataset(f"shards:{place}", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", ["", "/train-{000..002}.tar", "/train-*.tar", "/*.tar"])
def test_shards_are_read_in_any_order(tmp_path, place):
    put_shards(tmp_path)
    dataset = open_dataset(f"shards:{tmp_path}{place}")
    assert (dataset.class_names, dataset.notes) == (("0", "1", "2"), ())
    assert (len(dataset.train), len(dataset.test)) == (12, 3)
    np.testing.assert_array_equal(dataset.train.labels(), np.arange(12) % 3)
    for i in (11, 0, 4, 3):
        example = dataset.train[i]
        assert (example.image, example.label, example.index) == (image(i), i % 3, i)
        assert example.name == f"{tmp_path}/train-{i // 4:03d}.tar/{i:04d}.png"
        assert example.file_name == f"{i:04d}.png"


def test_a_photo_that_was_stored_on_its_side_is_turned_upright(tmp_path):
    put_shards(tmp_path)
    write_tar(tmp_path / "test-000.tar", samples(range(12, 15)) | {"0012.png": on_its_side()})
    split = load_split(open_dataset(f"shards:{tmp_path}").test, size=8, num_classes=3)
    np.testing.assert_array_equal(split.images[0], np.rot90(pixels(8, 8), -1))


@pytest.mark.parametrize(
    ("label", "options"),
    [
        (lambda n: {"json": json.dumps({"label": n % 3, "caption": "x"})}, {}),
        (lambda n: {"json": json.dumps({"kind": n % 3})}, {"label_column": "kind"}),
        (lambda n: {"json": str(n % 3)}, {}),
        (lambda n: {"json": json.dumps({"caption": "x"}), "cls": f"{n % 3}\n"}, {}),
        (lambda n: {"cls": str(n % 3), "json": json.dumps({"label": "other"})}, {}),
    ],
)
def test_ways_to_write_a_label(tmp_path, label, options):
    dataset = open_dataset(f"shards:{put_shards(tmp_path, label=label)}", **options)
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.test.labels(), [0, 1, 2])


def test_a_few_shards_of_some(tmp_path):
    put_shards(tmp_path)
    dataset = open_dataset(f"shards:{tmp_path}/train-{{000,002}}.tar")
    assert (len(dataset.train), len(dataset.test)) == (8, 3)
    message = refuse(f"{tmp_path}/train-{{000..004}}.tar")
    assert message == (
        f"{tmp_path}/train-003.tar: there is no such file or folder (2 of 5 are missing); correct "
        "the path"
    )


def test_shards_in_several_folders(tmp_path):
    write_tar(tmp_path / "a/0.tar", samples(range(10)))
    write_tar(tmp_path / "b/0.tar", samples(range(10, 20)))
    dataset = open_dataset(f"shards:{tmp_path}/{{a,b}}/0.tar")
    assert len(dataset.train) + len(dataset.test) == 20
    assert [*dataset.containers] == ["a/0.tar", "b/0.tar"]


def test_examples_are_held_out_by_their_keys(tmp_path):
    def held_out(*shards):
        for i, numbers in enumerate(shards):
            write_tar(tmp_path / f"{i}.tar", samples(numbers))
        dataset = open_dataset(f"shards:{tmp_path}", test_fraction=0.3)
        return {example.image for example in dataset.test}

    before = held_out(range(30))
    assert before <= held_out(range(15), range(15, 40))


def test_samples_of_one_name_are_held_out_each_by_itself(tmp_path):
    for i in range(30):
        write_tar(tmp_path / f"{i}.tar", samples(range(10)))
    now, before = (
        Counter(PurePath(test.name(i)).name for i in range(len(test)))
        for test in (
            open_dataset(f"shards:{tmp_path}", hold_out_by=by).test for by in ("path", "name")
        )
    )
    assert now.total() == pytest.approx(30, abs=16)  # its standard deviation is 5.2
    assert max(now.values()) < 10
    assert max(before.values()) == 30, "as runs of before go on"


def test_only_names_that_several_shards_have_depend_on_the_shard(tmp_path):
    def held_out(*shards):
        for i, numbers in enumerate(shards):
            write_tar(tmp_path / f"{i}.tar", samples(numbers))
        dataset = open_dataset(f"shards:{tmp_path}", test_fraction=0.3)
        return {example.image for example in dataset.test}

    before = held_out(range(30))
    after = held_out(range(30), range(29, 60))
    assert before - {image(29)} == after & {image(number) for number in range(29)}


def test_contents_are_bytes_and_labels(tmp_path):
    put_shards(tmp_path / "a")
    before = read_contents(open_dataset(f"shards:{tmp_path}/a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_contents(open_dataset(f"shards:{tmp_path}/b")) == before
    write_tar(tmp_path / "b/train-001.tar", samples(range(5, 9)))
    now = read_contents(open_dataset(f"shards:{tmp_path}/b"))
    assert changes(before, now) == "file train-001.tar changed, split train changed"


def test_what_is_left_out_is_counted(tmp_path):
    members = {".DS_Store": b"", "9.cls": b"1", "0000.txt": b"", "0001.seg.png": image(1)}
    write_tar(tmp_path / "a.tar", samples(range(6)) | members)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        for name, kind in (("folder.png", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0000.png"
            tar.addfile(member)
    (note,) = open_dataset(f"shards:{tmp_path}/a.tar").notes
    assert sorted(note.removeprefix("left out 5: ").split(", ")) == [
        "1 .seg.png (such as 0001.seg.png)",
        "1 .txt (such as 0000.txt)",
        "1 hidden (such as .DS_Store)",
        "1 links (such as link.png)",
        "1 without an image (such as 9)",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0002.cls": b""}, "a.tar/0002.png has no label: each image must have one"),
        ({"0002.cls": b"\xff"}, "0002.cls of .*a.tar is no text or no JSON"),
        ({"0002.json": b"{"}, "0002.json of .*a.tar is no text or no JSON"),
        ({"0002.jpg": b""}, "a.tar has 0002.png and 0002.jpg: each sample must have one image"),
    ],
)
def test_samples_that_are_wrong(tmp_path, changes, message):
    write_tar(tmp_path / "a.tar", samples(range(6)) | changes)
    with pytest.raises(UsageError, match=message):
        open_dataset(f"shards:{tmp_path}/a.tar")


def test_a_shard_that_cannot_be_read(tmp_path):
    put_shards(tmp_path)
    (tmp_path / "train-001.tar").unlink()
    (tmp_path / "train-001.tar").mkdir()
    message = refuse(f"{tmp_path}/train-{{000..002}}.tar")
    assert f"shard {tmp_path}/train-001.tar cannot be read (Is a directory): allow it" in message


def test_shards_that_are_damaged(tmp_path):
    file = write_tar(tmp_path / "a.tar", samples(range(6)))
    whole = file.read_bytes()
    middle = whole.index(b"0003.png")
    for damaged in (
        gzip.compress(whole),
        whole[: middle + 700],
        whole[:middle] + b"?" * 512 + whole[middle + 512 :],
        b"nothing",
    ):
        file.write_bytes(damaged)
        assert f"shard {file} is damaged, or compressed" in refuse(file)
    write_tar(file, {"a.txt": b""})
    assert "a.tar has no images: must hold files as 1.jpg and 1.cls" in refuse(file)
    file.unlink()
    assert f"{tmp_path} has no shard: must hold files .tar; correct the path" in refuse(tmp_path)
