"""The page of a run: drawn by real runs of every kind, and read as a browser would."""

import csv
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rattn_jax.training.run_report
from rattn_jax.data import open_dataset
from rattn_jax.report import page as page_module
from rattn_jax.report.confusion import wilson_interval
from rattn_jax.report.mask_health import Observation
from rattn_jax.report.mistakes import Mistaken, Mistakes
from rattn_jax.report.page import Evaluated, Masks, run_page
from rattn_jax.report.scores import Calibration
from rattn_jax.train import train_and_evaluate
from tests.compare import assert_equal, numbers, read_rows
from tests.data.test_folder import make_folder
from tests.devices import ONE
from tests.tiny import make_config

SECTIONS = {"result", "curves", "confusions", "classes", "calibration", "run"}
SECTIONS |= {"most-confident-mistakes"}
MASK_SECTIONS = {"mask-health", "what-the-masks-attend-to"}
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """A page that is refused unless its tags are balanced and it needs no other file."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.words, self.pictures = [], [], [], 0
        assert text.startswith("<!DOCTYPE html>")
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attributes):
        assert tag not in ("link", "iframe", "i", "name", "b-class"), tag
        assert tag != "script" or not attributes
        for name, value in attributes:
            assert not name.startswith("on")
            if name == "src":
                assert value.startswith("data:image/png;base64,")
                self.pictures += 1
            elif name not in ("alt", "title"):
                assert "//" not in value, (name, value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        assert self.open[-1:] != ["style"] or "url(" not in data
        if self.open[-1:] == ["script"]:
            assert not re.search("fetch|import|http|Request|Socket|innerHTML|eval", data)
            return
        self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


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


def synthetic_page(num_classes, last_rows=(), saved=(1_000, 2_000), **keep_best):
    """A page as after CIFAR, with so many classes; `last_rows` are more lines of metrics."""
    generator = np.random.RandomState(0)
    names = ["n01484850", *(f"class {i} <name>" for i in range(1, num_classes))]
    confusion = generator.poisson(0.7, (num_classes, num_classes)) + 90 * np.eye(num_classes)
    images = generator.randint(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    modules = [f"stage{s}/module{m}" for s in (1, 2, 3) for m in (1, 2, 3)]
    masks = {name: generator.uniform(size=(8, 8, 8)).astype(np.float32) for name in modules}
    history = [
        {
            "step": step,
            "split": "test",
            "images": 64,
            "modules": {
                name: {"mean": 0.5, "saturation": 0.1 * i, "entropy": 0.7}
                for i, name in enumerate(modules)
            },
            "responses": {"stage1": 2.0, "stage2": 0.01, "stage3": 0.001},
        }
        for step in (1_000, 2_000)
    ]
    record = {
        "config": {
            "num_train_steps": 160_000,
            "keep_best": {"metric": "error_top1", "split": "test"} | keep_best,
            "dataset": {"name": "folder:/data/many"},
            "model": {"name": "attention164", "attention_residual": False},
            "note": "https://example.org/<script>",
        },
        "dataset": {"class_names": names, "num_train": 50_000, "num_test": 10_000},
        "versions": {"jax": "0"},
        "devices": ["TPU", "TPU"],
        "git_commit": None,
    }
    rows = [
        {
            "step": step,
            "split": split,
            "loss": 40 / step,
            "error_top1": 60 / step,
            "error_top5": 5 / step,
            "learning_rate": 0.1,
            "images_per_second": None,
        }
        for step in range(100, 2_001, 100)
        for split in (["train"] if step % 1_000 else ["train", "test"])
    ]
    mistakes = Mistakes(np.full(8, 0.9), np.arange(8), np.zeros(8, int), np.ones(8, int))
    files = [f"/data/many/test/shark/{i}.jpg" for i in range(8)]
    bins = Calibration(np.full(15, 40), np.arange(15), np.linspace(0, 40, 15))
    seen = Observation(masks, {}, {}, {})
    return run_page(
        "/run",
        record,
        [*rows, *last_rows],
        {"test": 10_000},
        Evaluated(
            "test",
            confusion.astype(np.int32),
            bins,
            Mistaken("test", 10_000, mistakes, files, images),
        ),
        Masks("test", images, np.array([-1, *[0] * 7]), seen, history),
        51_300_000,
        saved,
    )


@pytest.mark.parametrize("num_classes", [10, 100, 150])
def test_pages_of_many_classes(num_classes):
    text = synthetic_page(num_classes)
    page = Page(text)
    assert set(page.ids) == SECTIONS | MASK_SECTIONS
    assert ("Most confused pairs" in page.text) == (num_classes > 20)
    assert page.pictures == 8 + 8 + 9 * (8 + 1) + (num_classes == 100)
    assert "Alarm. The response of the feature maps has collapsed" in page.text
    assert "2,000 updates, of 160,000" in page.text
    assert "https://example.org/<script>" in page.text
    assert "2 x TPU" in page.text
    assert "Best: after 2,000 updates" in page.text
    assert ", with the test split's error_top1 of 0.0300" in page.text
    assert "parameters 51,300,000 epochs 2.56; one is 781.25 updates" in page.text
    assert "test/shark/7.jpg" in page.text
    assert "/data/many/test" not in page.text
    assert "mistakes.csv lists 8 of 300 with their names" in page.text
    assert "is great white shark" in page.text
    assert "n01484850" not in page.text
    assert 'alt="test image 0: none"' in text


def test_page_of_a_run_whose_last_updates_were_skipped():
    nothing = dict.fromkeys(("loss", "error_top1", "error_top5"))
    last = {"step": 2_000, "split": "train", "learning_rate": 0.1, "images_per_second": None}
    assert "train 2,000 2.56 - - - - - nan" in Page(synthetic_page(10, [last | nothing])).text


def test_page_says_which_checkpoint_is_the_best_that_is_kept():
    text = Page(synthetic_page(10)).text
    assert "Best: after 2,000 updates" in text
    assert "of 0.0300; it is kept, for --step=best." in text
    text = Page(synthetic_page(10, saved=[1_000])).text
    assert "of 0.0300; that checkpoint is gone, and --step=best is the one after 1,000" in text
    text = Page(synthetic_page(10, metric=None)).text
    assert "of 0.0300; with --config.keep_best.metric such a checkpoint is kept." in text


def test_page_says_that_a_run_ended_early_and_why():
    page = Page(synthetic_page(10, mode="max", patience=1))
    assert (
        "after 2,000 updates, ended early (of 160,000 updates) by keep_best.patience=1: no "
        "error_top1 of test examples was better than the 0.0600 after 1,000"
    ) in page.text
    assert ", of 160,000" not in page.text


def test_page_explains_an_early_loss(monkeypatch):
    monkeypatch.setattr(page_module, "explain_loss", lambda rows, split, count: f"{split} {count}")
    assert "Test 10." in Page(synthetic_page(10)).text


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 375])
def test_page_fits_the_width_of_a_screen(tmp_path, width):
    """In a frame, for a window cannot be as narrow as a phone; its title says what is too wide."""
    (tmp_path / "report.html").write_text(synthetic_page(20))
    (tmp_path / "frame.html").write_text(
        f"<body style='margin:0'><iframe src=report.html style='width:{width}px;height:3000px;"
        "border:0'></iframe><script>onload = () => {"
        "const frame = document.querySelector('iframe'), page = frame.contentDocument;"
        "const root = page.documentElement, plot = page.querySelector('.plot.linear');"
        "const show = (kind) => getComputedStyle(page.querySelector(kind)).display;"
        "const box = plot.getBoundingClientRect(), events = frame.contentWindow;"
        "const at = { clientX: box.left + box.width / 2, clientY: box.top + 9 };"
        "plot.dispatchEvent(new events.PointerEvent('pointermove', at));"
        "const words = [root.scrollWidth - root.clientWidth, show('.log')];"
        "page.querySelector('.scale input').click();"
        "words.push(show('.log'), show('.linear'), page.querySelector('.values').textContent);"
        "document.title = words.join(' | ') }</script>"
    )
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--allow-file-access-from-files", "--virtual-time-budget=2000"),
        f"--user-data-dir={tmp_path}/browser",
        "--window-size=1280,3000",
    ]
    frame = (tmp_path / "frame.html").as_uri()
    environment = os.environ | {"HOME": str(tmp_path)}
    shot = tmp_path / "shot.png"
    for what in ("--dump-dom", f"--screenshot={shot}"):
        done = subprocess.run(
            [*command, what, frame], capture_output=True, text=True, timeout=200, env=environment
        )
        if what == "--dump-dom":
            title = re.search("<title>(.*)</title>", done.stdout)[1]
            assert title == (
                "0 | none | block | none | "
                "update 900, epoch 1.15: train 6.66667 %; test 6 % at 1000"
            ), done.stderr
    with Image.open(shot) as image:
        left = np.asarray(image.convert("L"))[:, :width]
    assert image.size == (1280, 3000)
    assert (left.std(axis=1) > 0).mean() > 0.5, "most of the page shows something"
