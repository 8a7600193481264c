"""Whole runs on the kinds of data that users have: streams, folders, noise, held-out examples."""

import json
import shutil

import numpy as np
import pytest

import rattn_jax
import rattn_jax.training.run
from rattn_jax.data import image_folder, open_dataset
from rattn_jax.errors import DataError, UsageError
from rattn_jax.inference.examples import open_split
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.train import train_and_evaluate
from tests.compare import assert_close, assert_equal, assert_rows_close, numbers, read_rows
from tests.data.images import encode, pixels
from tests.data.smallest import changed, folder_config, streaming
from tests.data.test_datasets_tables import put_hugging_face
from tests.data.test_folder import make_folder
from tests.data.test_shards import put_shards
from tests.devices import FOUR, ONE


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """A run with its data on the device: its folder and final state."""
    workdir = tmp_path_factory.mktemp("resident")
    return workdir, train_and_evaluate(changed(normalization="imagenet"), workdir, ONE)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """The same run with its data streamed."""
    workdir = tmp_path_factory.mktemp("streamed")
    return workdir, train_and_evaluate(streaming(), workdir, ONE)


def assert_same_run(found, expected):
    """Folders and final states of two runs of float32 that do the same in other programs."""
    assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
    assert_rows_close(*(read_rows(workdir) for workdir, _ in (found, expected)))


def test_a_stream_gives_the_numbers_of_resident_data(streamed, resident):
    assert_same_run(streamed, resident)


def test_several_updates_of_a_stream_in_a_call(resident, tmp_path):
    state = train_and_evaluate(streaming(steps_per_call=2), tmp_path, ONE)
    assert_same_run((tmp_path, state), resident)


@pytest.mark.slow
def test_a_stream_feeds_several_devices(tmp_path):
    found, expected = (
        (tmp_path / name, train_and_evaluate(config, tmp_path / name, FOUR))
        for name, config in (
            ("stream", streaming(parallel="pmap")),
            ("resident", changed(normalization="imagenet")),
        )
    )
    assert_same_run(found, expected)


def test_a_stream_resumes_bit_for_bit(streamed, tmp_path):
    train_and_evaluate(streaming(num_train_steps=3), tmp_path, ONE)
    assert_equal(train_and_evaluate(streaming(), tmp_path, ONE), streamed[1])


@pytest.mark.parametrize("max_resident_bytes", [0, 2**30])
def test_bad_training_images_are_skipped_up_to_a_limit(tmp_path, max_resident_bytes, caplog):
    folder = make_folder(tmp_path / "images", count=6)
    (folder / "train/dog/2.webp").write_bytes(b"")
    (folder / "train/cat/0.jpg").write_bytes(encode(pixels())[:200])
    keywords = {
        "dataset__max_resident_bytes": max_resident_bytes,
        "normalization": "imagenet",
    }
    train_and_evaluate(folder_config(folder, **keywords), tmp_path / "run", ONE)
    assert read_rows(tmp_path / "run")[-1]["step"] == 6
    named = [r.getMessage() for r in caplog.records if "skipping bad example" in r.getMessage()]
    assert len(named) == 2
    assert all(any(name in line for line in named) for name in ("cat/0.jpg", "dog/2.webp"))

    strict = folder_config(folder, dataset__max_bad_examples=1, **keywords)
    with pytest.raises(DataError, match="2 training examples cannot be used, more than dataset"):
        train_and_evaluate(strict, tmp_path / "strict", ONE)


@pytest.mark.parametrize("max_resident_bytes", [0, 2**30])
def test_a_bad_test_image_ends_the_run(tmp_path, max_resident_bytes):
    folder = make_folder(tmp_path / "images")
    (folder / "test/cat/1.PNG").write_bytes(b"")
    config = folder_config(
        folder, dataset__max_resident_bytes=max_resident_bytes, normalization="imagenet"
    )
    with pytest.raises(DataError, match=r"test/cat/1.PNG cannot be evaluated"):
        train_and_evaluate(config, tmp_path / "run", ONE)
    if max_resident_bytes == 0:  # read at the first evaluation, before which the run was saved
        assert all_steps(tmp_path / "run/checkpoints") == [2]
        return
    # Nothing was saved: the folder is free for another run.
    (folder / "test/cat/1.PNG").unlink()
    config.seed, config.num_train_steps = 1, 1
    train_and_evaluate(config, tmp_path / "run", ONE)
    assert [(row["step"], row["split"]) for row in read_rows(tmp_path / "run")] == [
        (1, "train"),
        (1, "test"),
    ]
    assert not (tmp_path / "run/earlier-1").exists()


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    class Listed(BaseException):
        pass

    def stop(dataset):
        raise Listed

    listed, real = [], image_folder.open_folder
    monkeypatch.setattr(
        image_folder, "open_folder", lambda *args, **how: listed.append(args) or real(*args, **how)
    )
    monkeypatch.setattr(rattn_jax.training.run, "read_contents", stop)
    folder = make_folder(tmp_path / "images")
    config = folder_config(folder, num_epochs=1.0, class_weights="balanced")
    with pytest.raises(Listed):
        train_and_evaluate(config, tmp_path / "run", ONE)
    assert len(listed) == 1


def test_a_folder_may_move_and_not_change(tmp_path, monkeypatch):
    make_folder(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    train_and_evaluate(folder_config("images", num_train_steps=1), tmp_path / "run", ONE)
    record = json.loads((tmp_path / "run/config.json").read_text())
    sizes = {"class_names": ["cat", "dog"], "num_train": 6, "num_test": 6}
    assert record["dataset"].items() >= sizes.items()
    assert record["config"]["dataset"]["name"] == f"folder:{tmp_path}/images"
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = folder_config("../moved", num_train_steps=1)
    train_and_evaluate(moved, tmp_path / "run", ONE)
    network = rattn_jax.load(tmp_path / "run")
    assert len(open_split(network, "test")[0]) == 6, "it is found where it is"
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    (tmp_path / "moved/train/cat/0.jpg").write_bytes(encode(pixels(seed=9)))
    with pytest.raises(
        UsageError, match=r"holds a run on other data .1 image of train/cat changed"
    ):
        train_and_evaluate(moved, tmp_path / "run", ONE)
    network = network.with_data_dir(str(tmp_path / "copy"))
    assert open_split(network, "train")[0].name(0).startswith(f"{tmp_path}/copy/train/")


@pytest.mark.parametrize("kind", [pytest.param("table", marks=pytest.mark.slow), "shards"])
def test_own_data_of_another_kind_trains_resumes_and_is_tested_on(tmp_path, kind):
    put = put_hugging_face if kind == "table" else put_shards
    put(tmp_path / "images", **({"kind": "parquet"} if kind == "table" else {}))
    config = folder_config("", dataset__name=f"{kind}:{tmp_path}/images", num_train_steps=1)
    train_and_evaluate(config, tmp_path / "run", ONE)
    (tmp_path / "images").rename(tmp_path / "moved")
    config.dataset.name, config.num_train_steps = f"{kind}:{tmp_path}/moved", 2
    train_and_evaluate(config, tmp_path / "run", ONE)
    assert [row["step"] for row in read_rows(tmp_path / "run") if row["split"] == "test"] == [1, 2]
    network = rattn_jax.load(tmp_path / "run")
    examples, _ = open_split(network, "test")
    assert network.predict([example.image for example in examples]).shape[0] == len(examples)
    put(tmp_path / "copy", **({"kind": "parquet"} if kind == "table" else {}))
    network = network.with_data_dir(str(tmp_path / "copy"))
    assert f"{tmp_path}/copy/" in open_split(network, "train")[0].name(0)


def test_what_was_found_is_said_and_a_run_of_before_goes_on_with_its_images(tmp_path, capsys):
    folder = make_folder(tmp_path / "images")
    config = folder_config(folder, num_train_steps=2, dataset__all_images=False, batch_size=8)
    with pytest.raises(UsageError, match="batch_size=8 is larger than the dataset"):
        train_and_evaluate(config, tmp_path / "run", ONE)
    config.batch_size = 4
    train_and_evaluate(config, tmp_path / "run", ONE)
    (folder / "train/cat/1.bmp").write_bytes(encode(pixels(), "BMP"))
    record = json.loads((tmp_path / "run/config.json").read_text())
    del record["config"]["dataset"]["all_images"]  # as an earlier version has written it
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    capsys.readouterr()
    train_and_evaluate(folder_config(folder, num_train_steps=2), tmp_path / "run", ONE)
    out = capsys.readouterr().out
    assert "it goes on with dataset.all_images=False" in out
    assert f"folder:{folder}: 6 training and 6 test images of 2 classes" in out


def test_test_split_is_used_once_where_examples_are_held_out(tmp_path):
    train_and_evaluate(changed(validation_examples=30), tmp_path, ONE)
    splits = [(row["step"], row["split"]) for row in read_rows(tmp_path) if row["split"] != "train"]
    expected = [(step, "validation") for step in (2, 4, 6)] + [(6, "test")]
    assert splits == expected
    # As if it had been killed between the last two lines.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
    for _ in range(2):
        train_and_evaluate(changed(validation_examples=30), tmp_path, ONE)
        assert numbers(read_rows(tmp_path)) == numbers(map(json.loads, lines))


def test_a_recipe_with_everything_trains_and_resumes(tmp_path):
    changes = {
        "augmentation__resized_crop_area": (0.5, 1.0),
        "augmentation__trivial_augment": True,
        "augmentation__lighting": 0.1,
        "regularization__cutout": 2,
        "regularization__erasing": 0.5,
        "regularization__mixup": 0.2,
        "regularization__cutmix": 1.0,
        "label_smoothing": 0.1,
        "ema_decay": 0.99,
        "accumulate_steps": 2,
        "optimizer__name": "adamw",
        "optimizer__schedule": "cosine",
        "optimizer__warmup_steps": 2,
        "optimizer__decay_norm_and_bias": False,
        "optimizer__clip_norm": 1.0,
        "optimizer__learning_rate": 1e-3,
    }
    config = changed(**changes)
    straight = train_and_evaluate(config, tmp_path / "straight", ONE)
    # A shorter run would have another schedule: go back to step 4 by hand.
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/6")
    resumed = train_and_evaluate(config, tmp_path / "resumed", ONE)
    assert_equal(resumed, straight)
    rows = [numbers(read_rows(tmp_path / name)) for name in ("straight", "resumed")]
    assert rows[0] == rows[1]
    assert all(np.isfinite(row["loss"]) for row in rows[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__max_resident_bytes": 0}, "normalization='mean_image' needs all images of"),
        ({"dataset__eval_image_size": 16}, "eval_image_size=16 is not the image size 8"),
        (
            {"batch_size": 1438},
            "batch_size=1438 is larger than the dataset: digits has 1437 images",
        ),
        (
            {"batch_size": 1000, "validation_examples": 500},
            "config.batch_size=1000 is larger than the dataset: digits has 937 images to train on",
        ),
        ({"dataset__image_size": 0}, "config.dataset.image_size=0 is out of range"),
        ({"dataset__label_noise__clean_ratio": 1.5}, "clean_ratio=1.5 is out of range: it must be"),
        ({"dataset__label_noise__matrix": "none.csv"}, r"none.csv is not a matrix of numbers"),
        ({"dataset__test_exclude_file": "none"}, "test_exclude_file='/.*/none' cannot be read"),
        (
            {"augmentation__resized_crop_area": (0.9, 0.1)},
            r"resized_crop_area=\(0.9, 0.1\) is out of range",
        ),
        ({"validation_examples": 1420}, "validation_examples=1420 takes 142 of the"),
        ({"accumulate_steps": 3}, "batch_size=16 cannot be split over 1 devices in 3 parts"),
        ({"optimizer__warmup_steps": 6}, "optimizer.warmup_steps=6 must be below num_train_steps"),
        (
            {"num_epochs": 0.1, "optimizer__warmup_epochs": 0.1},
            r"warmup_epochs=0.1 \(9 updates\) must be below num_epochs=0.1 \(9 updates\): shorten",
        ),
        ({"ema_decay": 1.0}, "config.ema_decay=1.0 is out of range: it must be at least 0 and"),
        ({"dataset__sampling": "even"}, "dataset.sampling='even' is out of range: it must be 'un"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 numbers: must have one for each of"),
        ({"dataset__classes": ("0", "1")}, "dataset.classes lacks '2', '3', '4', '5', '6', ...: m"),
        ({"normalization": "none"}, "config.normalization='none' is out of range"),
    ],
)
def test_bad_values(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        train_and_evaluate(changed(**changes), tmp_path, ONE)
    assert "\n" not in str(caught.value)


def test_images_of_a_folder_need_a_size(tmp_path):
    config = folder_config(make_folder(tmp_path / "images"))
    config.dataset.image_size = None
    with pytest.raises(
        UsageError, match=r"image_size is not set, and folder:.* has no size of its own"
    ):
        train_and_evaluate(config, tmp_path / "run", ONE)
    assert not (tmp_path / "run").exists()


def test_training_examples_of_a_run_are_those_that_it_was_trained_on(tmp_path):
    config = changed(
        validation_examples=200, dataset__label_noise__clean_ratio=0.5, num_train_steps=1
    )
    train_and_evaluate(config, tmp_path, ONE)
    network, digits = rattn_jax.load(tmp_path), open_dataset("digits").train
    train, held_out = (open_split(network, split)[0] for split in ("train", "validation"))
    assert (len(train), len(held_out)) == (1237, 200)
    positions = [example.index for example in train]
    assert not {*positions} & {example.index for example in held_out}
    np.testing.assert_array_equal(train.labels(), digits.labels()[positions])
