"""The page of a run: drawn by real runs of every kind, and read as a browser would."""

import csv
import json
import re
import shutil

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rattn_jax.training.run_report
from rattn_jax.data import open_dataset
from rattn_jax.report.confusion import wilson_interval
from rattn_jax.train import train_and_evaluate
from tests.compare import assert_equal, numbers, read_rows
from tests.data.test_folder import make_folder
from tests.devices import ONE
from tests.report.parsed_page import MASK_SECTIONS, SECTIONS, Page
from tests.tiny import make_config


def read_page(workdir):
    return Page((workdir / "report.html").read_text())


def read_health(workdir):
    return [json.loads(line) for line in (workdir / "mask_health.jsonl").read_text().splitlines()]


def run_config(**changes):
    return make_config(validation_examples=30, **{"report": True, **changes})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its folder and final state."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, train_and_evaluate(run_config(), workdir, ONE)


@pytest.fixture
def copied(straight, tmp_path):
    """A folder like it."""
    return shutil.copytree(straight[0], tmp_path / "run")


def test_page_of_a_run(straight):
    workdir = straight[0]
    page = read_page(workdir)
    assert set(page.ids) == SECTIONS | MASK_SECTIONS
    validation, test = read_rows(workdir)[-2:]
    assert f"{100 * test['error_top1']:.2f} % test error (95 % interval" in page.text
    assert "360 images) after 6 updates, finished" in page.text
    for row, count in ((validation, 30), (test, 360)):
        low, high = wilson_interval(round(count * row["error_top1"]), count)
        assert f"({100 * low:.2f} to {100 * high:.2f})" in page.text
    assert "360 test images: rows are true classes" in page.text
    assert "Measured on the first 16 validation images" in page.text
    assert "dataset.label_noise.clean_ratio 1.0" in page.text
    assert f"jax {jax.__version__}" in page.text
    assert page.pictures == 24 + 8 + 8 + 1  # mistakes, images, masks of the one module, its scale
    for name in ("balanced_accuracy", "ece"):
        assert f"{100 * test[name]:.2f} %" in page.text
    total = re.search(r"Total: ([\d,]+)", (workdir / "parameters.txt").read_text())[1]
    assert f"parameters {total} epochs" in page.text
    assert "epochs 0.07; one is 87.94 updates" in page.text  # (1,437 - 30) / 16


def test_mistakes_are_listed_with_their_names(straight):
    with (straight[0] / "mistakes.csv").open() as file:
        listed = list(csv.DictReader(file))
    test = read_rows(straight[0])[-1]
    assert len(listed) == round(360 * test["error_top1"])
    assert all(row["name"] == f"digits/test[{row['number']}]" for row in listed)
    labels = open_dataset("digits").test.labels()
    assert all(int(row["label"]) == labels[int(row["number"])] for row in listed)
    assert all(row["label"] != row["prediction"] for row in listed)
    assert f"mistakes.csv lists {len(listed)} of {len(listed)} with their names" in (
        read_page(straight[0]).text
    )


def test_tensorboard_has_pictures_of_the_masks(straight):
    events = EventAccumulator(str(straight[0] / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["masks"]
    assert [picture.step for picture in events.Images("masks")] == [2, 4, 6]


def test_training_is_the_same_without_a_page(straight, tmp_path):
    state = train_and_evaluate(run_config(report=False), tmp_path, ONE)
    assert_equal(state, straight[1])
    assert numbers(read_rows(tmp_path)) == numbers(read_rows(straight[0]))
    assert not {"report.html", "mask_health.jsonl"} & {path.name for path in tmp_path.iterdir()}


def test_history_of_the_masks_survives_a_resume(straight, copied):
    shutil.rmtree(copied / "checkpoints/6")
    with (copied / "mask_health.jsonl").open("a") as file:
        file.write('{"step":')  # killed while it wrote
    train_and_evaluate(run_config(), copied, ONE)
    assert read_health(copied) == read_health(straight[0])
    assert [row["step"] for row in read_health(copied)] == [2, 4, 6]


def test_a_run_killed_after_a_save_and_before_its_page_has_all_lines_of_the_masks(straight, copied):
    shutil.rmtree(copied / "checkpoints/6")
    first, *_ = (copied / "mask_health.jsonl").read_text().splitlines(keepends=True)
    (copied / "mask_health.jsonl").write_text(first)
    (copied / "report.html").write_text('<main data-update="2">')
    train_and_evaluate(run_config(), copied, ONE)
    assert read_health(copied) == read_health(straight[0])


@pytest.mark.parametrize(
    "page", [pytest.param(None, marks=pytest.mark.slow), '<main data-update="4">']
)
def test_finished_run_without_its_page_gets_one(straight, copied, page):
    (copied / "report.html").unlink()
    if page:  # killed between the last evaluation and its page
        (copied / "report.html").write_text(page)
    state = train_and_evaluate(run_config(), copied, ONE)
    assert_equal(state, straight[1])
    pages = [(path / "report.html").read_text() for path in (straight[0], copied)]
    pages = [re.sub(r">/[^<]*/(run|straight\d*)<|Drawn [^<]*", "", page) for page in pages]
    assert pages[0] == pages[1]
    for name in ("metrics.jsonl", "mask_health.jsonl"):
        assert (copied / name).read_text() == (straight[0] / name).read_text()


def test_failing_to_draw_is_said_in_one_line(copied, monkeypatch, capsys):
    def fail(*arguments):
        raise ValueError("two\nlines")

    (copied / "report.html").unlink()
    monkeypatch.setattr(rattn_jax.training.run_report, "run_page", fail)
    train_and_evaluate(run_config(), copied, ONE)
    output = capsys.readouterr().out
    assert "report.html could not be drawn (ValueError: two lines); the run continues\n" in output
    assert "test error" in output
    assert "report  " not in output


@pytest.mark.slow
def test_devices_with_pmap_and_stacked_modules(tmp_path):
    """Those of several processes, with shard_map: see `test_processes.py`."""
    config = make_config(report=True, parallel="pmap", num_train_steps=2, ema_decay=0.5)
    config.model.modules_per_stage = (2,)
    config.model.scan_modules = True
    train_and_evaluate(config, tmp_path, jax.devices()[:2])
    assert set(read_page(tmp_path).ids) == SECTIONS | MASK_SECTIONS
    assert list(read_health(tmp_path)[0]["modules"]) == ["stage1/module1", "stage1/module2"]


def test_stream_of_a_folder_with_odd_names(tmp_path):
    folder = make_folder(tmp_path / "images", count=6)
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / '<b-class a="1">&amp;')
        (folder / split / "dog").rename(folder / split / "caf\udce9")  # not UTF-8
    config = make_config(report=True, num_train_steps=2, normalization="imagenet", batch_size=4)
    config.dataset.update(name=f"folder:{folder}", image_size=8, max_resident_bytes=0)
    train_and_evaluate(config, tmp_path / "run<i>", ONE)
    page = read_page(tmp_path / "run<i>")
    assert '<b-class a="1">&amp;' in page.text
    assert r"caf\udce9" in page.text
    listed = (tmp_path / "run<i>/mistakes.csv").read_text().splitlines()[1:]
    assert len(listed) == round(12 * read_rows(tmp_path / "run<i>")[-1]["error_top1"]) > 0
    for line in listed:
        assert line.split(",")[2].startswith(f"{folder}/test/")
        assert line.split(",")[2].removeprefix(f"{folder}/").split('""')[0] in page.text
    assert "run<i>" in page.text
    assert set(page.ids) == SECTIONS | MASK_SECTIONS
    assert read_health(tmp_path / "run<i>")[0]["images"] == 4
