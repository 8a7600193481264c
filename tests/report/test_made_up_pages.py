"""The page of a run from made-up numbers, which no small run gives."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from rattn_jax.report import page as page_module
from rattn_jax.report.mask_health import Observation
from rattn_jax.report.mistakes import Mistaken, Mistakes
from rattn_jax.report.page import Evaluated, Masks, run_page
from rattn_jax.report.scores import Calibration
from tests.report.parsed_page import MASK_SECTIONS, SECTIONS, Page


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
