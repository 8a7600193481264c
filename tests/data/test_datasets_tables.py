"""Tables as the library `datasets` writes them: parquet and Arrow, with the images in them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from rattn_jax.data import open_dataset, table_files
from rattn_jax.data.contents import changes, read_contents
from rattn_jax.data.places import name_of
from rattn_jax.data.read import load_split
from rattn_jax.errors import UsageError
from tests.data.images import encode, on_its_side, pixels
from tests.data.test_table import FILES, put_images

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "unused", "dog"], "_type": "ClassLabel"},
}


def arrow_table(numbers, labels=None, paths=True):
    """A table as `datasets` writes it."""
    images = [
        {
            "bytes": encode(pixels(8, 8, seed=n), "PNG"),
            "path": f"{n}.png" if paths else None,
        }
        for n in numbers
    ]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    labels = [2 * (n % 2) for n in numbers] if labels is None else labels
    info = json.dumps({"info": {"features": FEATURES}})
    schema = pa.schema({"image": kind, "label": pa.int64()}, metadata={"huggingface": info})
    return pa.table([pa.array(images, kind), pa.array(labels)], schema=schema)


def put_hugging_face(folder, kind, paths=True):
    """Two files of training images, in groups of three rows, and one of test images."""
    splits = {"train": [range(5), range(5, 8)], "test": [range(8, 12)]}
    for split, files in splits.items():
        for i, numbers in enumerate(files):
            table = arrow_table(numbers, paths=paths)
            if kind == "parquet":
                file = folder / f"data/{split}-{i:05d}-of-{len(files):05d}.parquet"
                file.parent.mkdir(parents=True, exist_ok=True)
                parquet.write_table(table, file, row_group_size=3)
            else:
                file = folder / f"{split}/data-{i:05d}-of-{len(files):05d}.arrow"
                file.parent.mkdir(parents=True, exist_ok=True)
                with ipc.new_stream(str(file), table.schema) as stream:
                    stream.write_table(table, max_chunksize=3)
                (file.parent / "cache-1.arrow").write_bytes(b"of a function")
                (file.parent / "state.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_folders_of_datasets(tmp_path, kind):
    put_hugging_face(tmp_path, kind)
    assert name_of(str(tmp_path)) == f"table:{tmp_path}"
    dataset = open_dataset(f"table:{tmp_path}")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.notes == ("1 of the classes have no training images, and are left out: unused",)
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    for i in (7, 0, 4, 5, 3):
        example = dataset.train[i]
        assert example.image == encode(pixels(8, 8, seed=i), "PNG")
        assert (example.index, example.label, example.file_name) == (i, i % 2, f"{i}.png")
    np.testing.assert_array_equal(dataset.test.labels(), [0, 1, 0, 1])
    assert example.name == f"{dataset.train.name(3)} 3.png"
    assert dataset.train.name(3).endswith("[3]")
    with pytest.raises(IndexError):
        dataset.train[8]


@pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
def test_a_photo_that_was_stored_on_its_side_is_turned_upright(tmp_path, kind):
    put_images(tmp_path, FILES)
    (tmp_path / FILES[0]).write_bytes(on_its_side())
    images = {
        "bytes": [(tmp_path / file).read_bytes() for file in FILES],
        "struct": [{"bytes": (tmp_path / file).read_bytes(), "path": file} for file in FILES],
        "paths": FILES,
    }[kind]
    table = pa.table([images, ["cat", "dog"] * 3], names=["image", "label"])
    parquet.write_table(table.slice(0, 2), tmp_path / "test.parquet")
    parquet.write_table(table.slice(2), tmp_path / "train.parquet")
    split = load_split(open_dataset(f"table:{tmp_path}").test, size=8, num_classes=2)
    np.testing.assert_array_equal(split.images[0], np.rot90(pixels(8, 8), -1))


def test_contents_of_tables_with_images(tmp_path):
    put_hugging_face(tmp_path / "a", "parquet")
    before = read_contents(open_dataset(f"table:{tmp_path}/a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_contents(open_dataset(f"table:{tmp_path}/b")) == before
    table = arrow_table(range(8, 12), labels=[2, 0, 0, 2])
    parquet.write_table(table, tmp_path / "b/data/test-00000-of-00001.parquet")
    now = read_contents(open_dataset(f"table:{tmp_path}/b"))
    assert changes(before, now) == (
        "file data/test-00000-of-00001.parquet changed, split test changed"
    )


@pytest.mark.parametrize("paths", [True, False])
def test_images_in_a_table_are_held_out_by_their_names(tmp_path, paths):
    def held_out(numbers):
        parquet.write_table(arrow_table(numbers, paths=paths), tmp_path / "all.parquet")
        dataset = open_dataset(f"table:{tmp_path}/all.parquet", test_fraction=0.3)
        return {example.image for example in dataset.test}

    before = held_out(range(30))
    assert before <= held_out(range(40))
    if paths:
        assert held_out(range(29, -1, -1)) == before


def test_images_of_one_path_in_tables_of_one_name_are_held_out_each_by_itself(tmp_path):
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        parquet.write_table(arrow_table(range(6)), tmp_path / f"{i}/all.parquet")
    test = open_dataset(f"table:{tmp_path}/{{0..19}}/all.parquet").test
    assert 4 <= len(test) <= 24  # of 120
    assert len({example.file_name for example in test}) > 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, -1, -1], "row 2 of .* has no label, and 1 more have none"),
        ([0, 2, 3, 2], "the label 3 is out of range: the data names 3 classes"),
        ([0.5, 2.0, 0.0, 2.0], "the label 0.5 is no class: labels must be names or whole numbers"),
    ],
)
def test_labels_that_are_wrong(tmp_path, labels, message):
    table = arrow_table(range(4)).drop(["label"]).append_column("label", pa.array(labels))
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=message):
        open_dataset(f"table:{tmp_path}/a.parquet")


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = arrow_table(range(4)).append_column("label", pa.array([0] * 4))
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        UsageError, match=r"a.parquet is damaged \(it has 'label' twice as the name"
    ):
        open_dataset(f"table:{tmp_path}/a.parquet")


def test_test_images_without_labels_are_not_read(tmp_path):
    put_hugging_face(tmp_path, "parquet")
    file = tmp_path / "data/test-00000-of-00001.parquet"
    parquet.write_table(arrow_table(range(4), labels=[-1] * 4), file)
    parquet.write_table(arrow_table(range(20, 26)), tmp_path / "data/validation.parquet")
    dataset = open_dataset(f"table:{tmp_path}")
    assert (len(dataset.train), len(dataset.test)) == (8, 6)
    assert f"{file} is not read: it has no labels" in dataset.notes


def test_images_of_several_classes_in_parquet(tmp_path):
    features = {"label": {"feature": FEATURES["label"], "_type": "Sequence"}}
    schema = pa.schema(
        {"file_name": pa.string(), "label": pa.list_(pa.int64())},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    labels = [[0, 2], [2], [], [0], [2], [0]]
    parquet.write_table(pa.table([FILES, labels], schema=schema), tmp_path / "a.parquet")
    put_images(tmp_path, FILES)
    dataset = open_dataset(f"table:{tmp_path}/a.parquet")
    assert dataset.class_names == ("cat", "dog")
    assert sorted(dataset.label_sets.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_tables_of_other_programs(tmp_path):
    """Images without paths, numbers as pandas writes them, Arrow's format of files."""
    images = [encode(pixels(8, 8, seed=n), "PNG") for n in range(6)]
    schema = pa.schema(
        {"image": pa.binary(), "label": pa.float64()}, metadata={"huggingface": "none"}
    )
    table = pa.table([images, [0.0, 1.0] * 3], schema=schema)
    parquet.write_table(table, tmp_path / "a.parquet")
    with ipc.new_file(str(tmp_path / "a.arrow"), schema) as file:
        file.write_table(table, max_chunksize=4)
    for name in ("a.parquet", "a.arrow"):
        dataset = open_dataset(f"table:{tmp_path}/{name}", test_fraction=0.3)
        assert dataset.class_names == ("0", "1")
        examples = [*dataset.train, *dataset.test]
        assert sorted((e.image, e.label) for e in examples) == sorted(
            (image, n % 2) for n, image in enumerate(images)
        )


def test_a_table_with_images_may_have_paths_instead(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    paths = [{"bytes": None, "path": file} for file in FILES]
    table = pa.table([pa.array(paths, kind), ["cat", "dog"] * 3], names=["image", "label"])
    parquet.write_table(table, tmp_path / "a.parquet")
    put_images(tmp_path, FILES)
    dataset = open_dataset(f"table:{tmp_path}/a.parquet")
    for example in (*dataset.train, *dataset.test):
        assert example.image == (tmp_path / "images" / example.file_name).read_bytes()


def test_groups_of_rows_that_are_not_kept_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_CACHE", table_files._Cache(max_bytes=1))
    put_hugging_face(tmp_path, "parquet")
    source = open_dataset(f"table:{tmp_path}").train
    for i in (0, 7, 0, 4, 7, 1):
        assert source[i].image == encode(pixels(8, 8, seed=i), "PNG")


def test_a_damaged_column_is_one_line(tmp_path):
    parquet.write_table(
        pa.table([FILES, ["cat", "dog"] * 3], names=["file_name", "label"]),
        tmp_path / "a.parquet",
        use_dictionary=False,
        compression="gzip",
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    start = parquet.read_metadata(tmp_path / "a.parquet").row_group(0).column(1).data_page_offset
    for i in range(start + 20, start + 40):
        data[i] ^= 255
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(UsageError, match=r"a.parquet (cannot be read|is damaged) \(") as caught:
        open_dataset(f"table:{tmp_path}/a.parquet")
    assert "\n" not in str(caught.value)
