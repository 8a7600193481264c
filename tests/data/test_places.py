"""Which kind of data lies at a path."""

import pytest

from rattn_jax.data.places import name_of


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["cat/1.png", "dog/1.png", "labels.csv"], "folder:"),
        (["train/cat/1.png", "train/dog/1.png", "train.csv"], "folder:"),
        (["cat/1.png", "dog/1.png", "metadata.csv"], "folder:"),
        (["cat/1.png", "dog/1.png", "metadata.jsonl"], "table:"),
        (["cat/1.png", "dog/1.png", "metadata.tsv"], "table:"),  # which says what is wrong
        (["images/1.png", "labels.csv"], "table:"),
        (["train/1.png", "test/1.png", "train.csv", "test.csv"], "table:"),
        (["train-000.tar", "train-001.tar"], "shards:"),
        (["train/000.tar", "test/000.tar"], "shards:"),
        (["1.png"], "folder:"),
    ],
)
def test_what_lies_in_a_folder(tmp_path, files, expected):
    texts = {
        "metadata.jsonl": '{"file_name": "1.png", "label": "a"}',
        "metadata.csv": "file_name,caption",
        "metadata.tsv": "file_name\tlabel\tclass",
    }
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text(texts.get(file, ""))
    assert name_of(str(tmp_path)) == expected + str(tmp_path)


def test_what_lies_at_a_path():
    places = ["a/labels.csv", "a.PARQUET", "train-{000..009}.tar", "train-*.tar", "nowhere"]
    kinds = [name_of(place).partition(":")[0] for place in places]
    assert kinds == ["table", "table", "shards", "shards", "folder"]
