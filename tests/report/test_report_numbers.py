"""What the page of a run says: observations, intervals, alarms, lines."""

import re

import jax
import numpy as np
import pytest

from rattn_jax.data.batches import mean_image_normalization
from rattn_jax.models import create_model, stack_modules
from rattn_jax.models.resnet import ResNet
from rattn_jax.report import charts
from rattn_jax.report.charts import Axis, Series, chart, number, percent
from rattn_jax.report.confusion import wilson_interval
from rattn_jax.report.mask_health import (
    BINS,
    Observation,
    alarm,
    entropy,
    health_row,
    health_section,
    saturation,
)
from rattn_jax.report.mask_picture import draw_masks
from rattn_jax.report.pictures import ColorRange, color_bar, color_range, overlay
from rattn_jax.report.unsettled import explain_loss
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import loop
from rattn_jax.training.page_data import Probe
from tests.tiny import make_config
from tests.variables import random_variables


def test_what_is_observed():
    images = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    normalization = mean_image_normalization(images)
    keywords = {"widths": (8,), "modules_per_stage": [2], "mask_poolings": (1,)}
    model = create_model("attention56_cifar", 3, **keywords)
    inputs = images - np.asarray(normalization.mean)
    variables = random_variables(model, (8, 8, 3))
    seen = Probe(model, num_masks=2)(variables, images, normalization)
    _, sown = model.apply(
        variables, inputs, train=False, mutable=["intermediates"], capture_intermediates=True
    )
    sown = sown["intermediates"]
    assert list(seen.masks) == ["stage1/module1", "stage1/module2"]
    for name in seen.masks:
        stage, module = name.split("/")
        mask = np.asarray(sown[stage][module]["mask_output"][0])
        np.testing.assert_allclose(seen.masks[name], mask[:2].mean(axis=-1), rtol=1e-5)
        assert seen.means[name] == pytest.approx(mask.mean(), rel=1e-5)
        counts = np.histogram(np.clip(mask, 0, 1), BINS, (0, 1))[0] / mask.size
        np.testing.assert_allclose(seen.shares[name], counts, atol=1e-3)
        assert saturation(counts) == pytest.approx(((mask < 0.05) | (mask >= 0.95)).mean())
    for stage, response in seen.responses.items():
        assert response == pytest.approx(np.abs(sown[stage]["__call__"][0]).mean(), rel=1e-5)
    scanned = create_model("attention56_cifar", 3, scan_modules=True, remat=True, **keywords)
    stacked = Probe(scanned, num_masks=2)(stack_modules(variables), images, normalization)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), stacked, seen)


def test_a_baseline_has_no_masks():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    model = ResNet(num_classes=3, units_per_stage=(1,), widths=(8,))
    variables = random_variables(model, (8, 8, 3))
    normalization = mean_image_normalization(images)
    assert Probe(model, num_masks=2)(variables, images, normalization) is None


def test_entropy_and_saturation():
    even, one = np.full(BINS, 1 / BINS), np.eye(BINS)[3]
    assert (entropy(even), entropy(one)) == (pytest.approx(1), 0)
    assert (saturation(even), saturation(one)) == (pytest.approx(0.1), 0)


def test_what_is_not_finite_is_null():
    shares = np.eye(BINS)[0]
    means = {"a": np.nan, "b": 0.0}
    seen = Observation({}, means, {"a": shares, "b": shares}, {"stage1": np.inf})
    row = health_row(3, "test", 8, seen)
    assert row["modules"]["a"] == {"mean": None, "saturation": None, "entropy": None}
    assert row["modules"]["b"] == {"mean": 0, "saturation": 1, "entropy": 0}
    assert row["responses"] == {"stage1": None}
    assert "nan" in health_section([row], None)


def test_wilson_interval():
    """Against the roots of its definition, |p - errors / n| = z sqrt(p (1 - p) / n)."""
    for errors, count in ((0, 10), (3, 10), (10, 10), (552, 10_000)):
        for bound in wilson_interval(errors, count):
            distance = 1.959964 * np.sqrt(bound * (1 - bound) / count)
            assert abs(bound - errors / count) == pytest.approx(distance, abs=1e-7)


@pytest.mark.parametrize(
    ("responses", "residual", "expected"),
    [
        ((4.0, 3.0, 0.5), True, None),
        ((4.0, 3.0, 0.39), False, r"it is 0.098 for stage3 after 7 .*attention_residual=True\)"),
        (
            (4.0, 0.01, 0.3),
            True,
            "it is 0.0025 for stage2, 0.075 for stage3 after .*add 1 to their",
        ),
        ((0.0, 0.0), True, "collapsed: it is 0 for stage1, 0 for stage2 after 7"),
        ((0.0, 0.5), True, "collapsed: it is 0 for stage1 after 7"),
        ((4.0, None, 1.0), True, "response of stage2 is not a finite number after 7"),
    ],
)
def test_alarm(responses, residual, expected):
    stages = {f"stage{i + 1}": value for i, value in enumerate(responses)}
    found = alarm({"step": 7, "responses": stages}, residual)
    assert found is None if expected is None else re.search(expected, found)


def test_chart_leaves_out_what_is_not_finite_and_thins_long_lines():
    nan = float("nan")
    series = [
        Series("a", [(step, 1 / step if step % 2 else nan) for step in range(1, 4_001)]),
        Series("b", [(5, None), (6, nan)]),
        Series("c", [(2_000, 0.5)]),
    ]
    text = chart("Loss", "", series, Axis(number, log=True))
    assert "nan" not in text
    assert ">b<" not in text
    lines = [line.split() for line in re.findall(r'points="([^"]*)"', text)]
    assert [len(line) for line in lines] == [400, 1] * 2  # linear and logarithmic
    assert [len(xs.split()) for xs in re.findall(r'data-x="([^"]*)"', text)] == [400, 1]
    assert text.count("<circle") == text.count("<square") == 0 < text.count("<path")
    assert chart("Loss", "", series[1:2], Axis(number)) == ""


def test_chart_has_the_values_of_its_points_and_a_logarithmic_axis():
    rows = [(10, 0.5), (20, 0.0), (30, 0.005)]
    text = chart("Error", "", [Series("test", rows)], Axis(percent, low=0.0), epoch=20)
    assert 'data-x="10 20 30" data-y="50 %|0 %|0.5 %"' in text
    assert 'data-epoch="20"' in text
    linear, log = (
        [float(point.split(",")[1]) for point in line.split()]
        for line in re.findall(r'points="([^"]*)"', text)
    )
    assert linear[1] == log[1] == 172  # the bottom
    assert linear[0] < linear[2] < 172
    assert log[0] < log[2] <= 172
    assert "checked" not in text  # zero has no logarithm
    assert "checked" in chart("Rate", "", [Series("rate", [(1, 0.1)])], Axis(number, log=True))
    for axis in (Axis(number, low=0.0, high=1.0), Axis(number)):
        flat = chart("Mean", "", [Series("m", [(1, 0.0)])], axis)
        assert "log" not in flat


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e6])
def test_ticks_of_any_size(scale):
    ticks = charts._ticks(0.9 * scale, scale)
    np.testing.assert_allclose(ticks, scale * np.array([0.9, 0.92, 0.94, 0.96, 0.98, 1]), 1e-9)


def test_masks_of_a_module_share_the_colors_that_are_named():
    """A value has the same color in each picture, and the named ends have the ends' colors."""
    masks = np.array([[[0.317, 0.5]], [[0.5, 0.7049]]], np.float32)
    low, high = color_range(masks)
    assert (low, high) == (0.31, 0.71)
    gray = np.zeros((4, 4, 3), np.uint8)

    def color(value):
        picture = overlay(gray, np.full((1, 1), value, np.float32), ColorRange(low, high))
        return picture.convert("RGB").getpixel((50, 50))

    bar = np.asarray(color_bar())
    for value, place in ((low, 0), (high, -1)):
        np.testing.assert_allclose(color(value), 0.6 * bar[0, place], atol=3)
    assert color(0.5) not in (color(low), color(high))
    assert color(np.nan) == color(low)
    assert color_range(np.full((1, 2, 2), 0.5)) == (0.5, 0.51)
    assert color_range(np.full((1, 2, 2), np.nan)) == (0, 1)


def test_picture_of_the_masks_has_a_row_for_each_module():
    images = np.full((3, 8, 8, 3), 200, np.uint8)
    masks = {"stage1/module1": np.zeros((3, 4, 4)), "stage2/module1": np.zeros((3, 2, 2))}
    masks["stage2/module1"][2] = 1
    picture = draw_masks(images, Observation(masks, {}, {}, {}))
    left, step = 132, 66
    assert picture.size == (left + 3 * step, 3 * step)

    def tile(row, column):
        return picture.getpixel((left + column * step + 30, row * step + 30))

    assert tile(0, 0) == (200, 200, 200)
    assert tile(1, 0) == tile(1, 2) == tile(2, 0) != tile(2, 2)
    light, dark = sum(tile(2, 2)), sum(tile(2, 0))
    assert light > dark
    beside = np.asarray(picture.convert("L"))[:, :left]
    assert all(beside[row * step : (row + 1) * step].min() < 60 for row in range(3))  # text


@pytest.mark.parametrize(
    ("step", "training", "test", "is_explained"),
    [
        (4, 2.0, 6_701.0, True),
        (4, None, 6_701.0, True),
        (1_000, 2.0, 4.7, True),
        (1_001, 2.0, 4.7, False),  # late
        (4, 2.0, 4.6, False),  # not twice the loss of guessing, ln 10 = 2.303
        (4, 4.0, 7.9, False),  # not twice that of training
        (4, 2.0, None, False),  # NaN, which has its own message
        (800, 0.02, 5.0, False),  # training examples known by heart
        (800, 0.02, 25.0, True),
    ],
)
def test_early_losses_are_explained(step, training, test, is_explained):
    rows = [
        {"step": 1, "split": "test", "loss": 2.0},
        {"step": 2, "split": "train", "loss": training},
        {"step": step, "split": "test", "loss": test},
    ]
    text = explain_loss(rows, "test", 10)
    assert (text is not None) == is_explained
    if text:
        assert (
            f"the test loss of {test:,.1f} (guessing has 2.3) is no fault: after {step:,}" in text
        )


def test_training_says_it_with_its_own_numbers(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(loop, "explain_loss", lambda *rest: asked.append(rest) or "an explanation")
    train_and_evaluate(make_config(num_train_steps=2), tmp_path, jax.devices()[:1])
    ((rows, split, num_classes),) = asked
    assert (rows[-1]["split"], split, num_classes) == ("test", "test", 10)
    assert "\nan explanation\n" in capsys.readouterr().out
