"""One's own images in a table: CSV, JSON lines, and what is wrong in tables of every kind."""

import json

import numpy as np
import pytest

from rattn_jax.data import open_dataset
from rattn_jax.data.contents import changes, read_contents
from rattn_jax.data.places import name_of
from rattn_jax.errors import UsageError
from tests.data.images import encode, pixels


def put_images(folder, names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(pixels(8, 8, seed=number), "PNG"))


def write_csv(file, rows, header="file_name,label"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


FILES = [f"images/{i}.png" for i in range(6)]
ROWS = [f"{file},{'cat' if i % 2 else 'dog'}" for i, file in enumerate(FILES)]


def make_table(folder, rows=ROWS, name="labels.csv"):
    put_images(folder, FILES)
    return write_csv(folder / name, rows)


def refuse(place, **options):
    with pytest.raises(UsageError) as caught:
        open_dataset(f"table:{place}", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labelled(source, names):
    return sorted((names[e.label], e.file_name) for e in (source[i] for i in range(len(source))))


def test_a_table_says_the_classes_of_files(tmp_path):
    make_table(tmp_path)
    dataset = open_dataset(f"table:{tmp_path}/labels.csv", test_fraction=0.3)
    assert dataset.class_names == ("cat", "dog")
    examples = [dataset.train[i] for i in range(len(dataset.train))]
    examples += [dataset.test[i] for i in range(len(dataset.test))]
    expected = [(("dog", "cat")[i % 2], f"{i}.png") for i in range(6)]
    found = [(dataset.class_names[e.label], e.file_name) for e in examples]
    assert sorted(found) == sorted(expected)
    assert examples[0].name == f"{tmp_path}/images/{examples[0].file_name}"
    assert examples[0].path == f"images/{examples[0].file_name}"
    assert examples[0].image == (tmp_path / "images" / examples[0].file_name).read_bytes()
    assert dataset.test.name(0) in {f"{tmp_path}/{file}" for file in FILES}


def test_contents_are_classes_and_files_and_neither_order_nor_place(tmp_path):
    make_table(tmp_path / "a")
    before = read_contents(open_dataset(f"table:{tmp_path}/a/labels.csv"))
    assert next(iter(before)) == "train/cat/images/1.png"
    (tmp_path / "a").rename(tmp_path / "b")
    write_csv(tmp_path / "b/labels.csv", ROWS[::-1])
    again = read_contents(open_dataset(f"table:{tmp_path}/b/labels.csv"))
    assert list(again.items()) == list(before.items())
    swapped = [ROWS[0].replace("dog", "cat"), *ROWS[1:]]
    write_csv(tmp_path / "b/labels.csv", swapped)
    now = read_contents(open_dataset(f"table:{tmp_path}/b/labels.csv"))
    assert changes(before, now) == "1 image of train/cat added, 1 image of train/dog removed"


@pytest.mark.parametrize(
    "texts",
    [
        ("labels.tsv", "\ufeffPath\tClass\n", "{}\t{}\n"),
        ("labels.csv", "image;category\n", '{};"{}"\n'),
        ("labels.csv", "image,category\n\n", "{}, {} \n"),
        ("labels.jsonl", "", '{{"filename": "{}", "label": "{}"}}\n'),
    ],
)
def test_ways_to_write_a_table(tmp_path, texts):
    put_images(tmp_path, FILES)
    name, head, row = texts
    text = head + "".join(row.format(*line.split(",")) for line in ROWS)
    (tmp_path / name).write_text(text)
    dataset = open_dataset(f"table:{tmp_path}/{name}")
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.train) + len(dataset.test) == 6


def test_numbers_as_classes_are_in_their_order(tmp_path):
    make_table(tmp_path, [f"{file},{(10, 9, 2)[i % 3]}" for i, file in enumerate(FILES)])
    assert open_dataset(f"table:{tmp_path}/labels.csv").class_names == ("2", "9", "10")


def test_columns_are_named_where_they_have_no_usual_names(tmp_path):
    put_images(tmp_path, FILES)
    rows = [f"{file},x,{'cat' if i % 2 else 'dog'}" for i, file in enumerate(FILES)]
    table = write_csv(tmp_path / "a.csv", rows, "photo,note,species")
    message = refuse(table)
    assert f"{table} has the columns photo, note, species, and none with a usual name" in message
    assert "--config.dataset.image_column=NAME" in message
    message = refuse(table, image_column="photo", label_column="specie")
    assert message.startswith("dataset.label_column='specie': ")
    assert message.endswith("has the columns photo, note, species; name one of them")
    dataset = open_dataset(f"table:{table}", image_column="photo", label_column="species")
    assert dataset.class_names == ("cat", "dog")
    write_csv(table, rows, "file,class,label")
    assert "has the columns class, label: say which one is meant with" in refuse(table)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*ROWS, "images/9.png,cat", "8.png,cat"],
            "line 8 of .* names 'images/9.png', which is no",
        ),
        (
            [*ROWS[:2], f"{FILES[2]},", *ROWS[3:5], f"{FILES[5]}, "],
            "line 4 of .* has no label, and",
        ),
        ([*ROWS, ROWS[2]], "line 8 of .* has 'images/2.png' again, as line 4 of .*: each image"),
        ([*ROWS, f"./images/../{FILES[2]},dog"], "has './images/../images/2.png' again, as line 4"),
        ([*ROWS, f"{FILES[1]},dog"], "line 8 of .* has 'images/1.png' again, as line 3 of"),
        (
            [f"{file},cat" for file in FILES],
            "all labels up to line 7 of .* are cat: there must be at least 2 cl",
        ),
        ([*ROWS, "a,b,c"], r"labels.csv is damaged \(line 8 has 3 values for 2 columns\)"),
        ([*ROWS, ",cat"], "line 8 of .* has no file_name: fill it in, or remove the row"),
        ([], "labels.csv has no rows: add images"),
        ([*ROWS, "images/caf\udce9.png,cat"], r"is damaged \(line 8 is not UTF-8: save it as UTF"),
    ],
)
def test_rows_that_are_wrong(tmp_path, rows, message):
    put_images(tmp_path, FILES)
    text = "\n".join(["file_name,label", *rows])
    (tmp_path / "labels.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(f"table:{tmp_path}/labels.csv")
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_refused(tmp_path):
    put_images(tmp_path, FILES)
    table = write_csv(tmp_path / "a.csv", [f"{row},x,," for row in ROWS], "file,label, label ,,")
    assert refuse(table) == (
        f"{table} is damaged (it has 'label' twice as the name of a column): correct it"
    )
    write_csv(table, [f"{row},x,," for row in ROWS], "file,label,note,,")
    assert open_dataset(f"table:{table}").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("way", "notes"),
    [
        ("column", ("1 of the classes have no test images: cat",)),
        ("folders", ()),
        ("files", ()),
        ("given train", ()),
        ("unlabelled", ("{}/test.csv is not read: it has no labels",)),
        ("validation", ("images of another part that are not read: 1 of {}/valid.csv",)),
    ],
)
def test_parts(tmp_path, way, notes):
    place, train = tmp_path, ROWS[:4]
    put_images(tmp_path, FILES)
    if way == "column":
        rows = [
            f"{row},{'Training' if i in (0, 1, 3) else 'test'}" for i, row in enumerate(ROWS[:5])
        ]
        place = write_csv(tmp_path / "all.csv", rows, "file_name,label,split")
    elif way == "folders":
        rows = [f"{'train' if i < 4 else 'val'}/{row}" for i, row in enumerate(ROWS)]
        put_images(tmp_path, [row.split(",")[0] for row in rows])
        place = write_csv(tmp_path / "all.csv", rows)
    else:
        write_csv(tmp_path / "train.csv", train)
        write_csv(tmp_path / "sub.txt", [])
        if way == "unlabelled":
            write_csv(tmp_path / "test.csv", FILES[4:], "file_name")
        else:
            write_csv(tmp_path / "test_set.csv", ROWS[4:])
        if way == "validation":
            write_csv(tmp_path / "valid.csv", ROWS[3:4])
        place = tmp_path / "train.csv" if way == "given train" else tmp_path
    dataset = open_dataset(f"table:{place}")
    sizes = {"column": (3, 2), "unlabelled": (2, 2)}.get(way, (4, 2))
    assert (len(dataset.train), len(dataset.test)) == sizes
    assert dataset.notes == tuple(note.format(tmp_path) for note in notes)
    assert not {e.name for e in dataset.train} & {e.name for e in dataset.test}


def test_parts_that_are_wrong(tmp_path):
    put_images(tmp_path, FILES)
    table = write_csv(tmp_path / "a.csv", [f"{row},holdout" for row in ROWS], "file,label,Split")
    note = f"column Split is not read: line 2 of {table} has the Split 'holdout', which is no part"
    assert note in open_dataset(f"table:{table}").notes
    assert "has the Split 'holdout': must be train, test or valid" in refuse(
        table, split_column="Split"
    )
    write_csv(table, [f"{row},test" for row in ROWS], "file,label,split")
    assert "a.csv has no row of the part train: must have one; correct split" in refuse(table)
    write_csv(tmp_path / "b.csv", ROWS)
    assert "has a.csv, b.csv, of which only one can be meant: name it" in refuse(tmp_path)
    (tmp_path / "a.csv").rename(tmp_path / "test.csv")
    assert "has test.csv and no table called train: add it, or rename" in refuse(tmp_path)
    write_csv(tmp_path / "train.csv", ROWS[:4])
    write_csv(tmp_path / "test.csv", ["images/5.png,bird"])
    assert "line 2 of" in (message := refuse(tmp_path))
    assert "has the class 'bird', of which there are no training images" in message
    write_csv(tmp_path / "test.csv", ROWS[3:])
    assert "has 'images/3.png' again, as line 5 of" in refuse(tmp_path), "it would leak"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl"])
def test_files_that_are_damaged(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"file_name": "1.png"')
    assert f"{tmp_path}/{name} is damaged (" in refuse(tmp_path / name)
    assert "there is no such file or folder; correct the path" in refuse(tmp_path / "b.csv")


def test_folder_of_images_with_metadata(tmp_path):
    for part, files in (("train", FILES[:4]), ("test", FILES[4:])):
        put_images(tmp_path / part, files)
        rows = [f"{file},{'ab'[i % 2]}" for i, file in enumerate(files)]
        write_csv(tmp_path / part / "metadata.csv", rows)
    dataset = open_dataset(name_of(str(tmp_path)))
    assert dataset.name == f"table:{tmp_path}"
    assert (len(dataset.train), len(dataset.test), dataset.notes) == (4, 2, ())


SEVERAL = [["cat", "dog"], ["dog"], [], ["dog", "cat"], ["bird"], ["cat"]]


@pytest.mark.parametrize("way", ["JSON lines", "JSON in CSV", "separator"])
def test_images_of_several_classes(tmp_path, way):
    put_images(tmp_path, FILES)
    options = {"test_fraction": 0.3}
    if way == "JSON lines":
        place = tmp_path / "labels.jsonl"
        rows = [{"file_name": f, "labels": x} for f, x in zip(FILES, SEVERAL, strict=True)]
        place.write_text("\n".join(map(json.dumps, rows)))
    else:
        texts = [json.dumps(x).replace('"', '""') for x in SEVERAL]
        if way == "separator":
            options["label_separator"] = "|"
            texts = [" | ".join(classes) for classes in SEVERAL]
        rows = [f'{file},"{text}"' for file, text in zip(FILES, texts, strict=True)]
        place = write_csv(tmp_path / "labels.csv", rows, "file_name,labels")
    dataset = open_dataset(f"table:{place}", **options)
    assert dataset.class_names == ("bird", "cat", "dog")
    assert dataset.notes == ("images that have none of the classes: 1",)
    assert "train/cat+dog/images/3.png" in read_contents(dataset)
    assert len(dataset.test) > 0
    for source in (dataset.train, dataset.test):
        for example in source:
            classes = np.array(dataset.class_names)[dataset.label_sets[example.label] > 0]
            assert sorted(SEVERAL[int(example.file_name[0])]) == classes.tolist()
    other = open_dataset(f"table:{place}", classes=("dog", "bird", "cat"), **options)
    expected = dataset.label_sets[:, [2, 0, 1]]
    np.testing.assert_array_equal(other.label_sets, expected)
    np.testing.assert_array_equal(other.train.labels(), dataset.train.labels())


def test_a_row_that_is_no_object(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n["images/0.png", "cat"]\n')
    assert "a.jsonl is damaged (line 2 is no JSON object)" in refuse(tmp_path / "a.jsonl")


def test_a_name_that_begins_like_a_list(tmp_path):
    make_table(tmp_path, [f"{file},{'[cat' if i % 2 else 'dog'}" for i, file in enumerate(FILES)])
    assert open_dataset(f"table:{tmp_path}/labels.csv").class_names == ("[cat", "dog")
