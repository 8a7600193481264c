"""Images of several classes: the sigmoid loss, mean average precision and F1."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

import rattn_jax
from rattn_jax.config.load import parse_config
from rattn_jax.data import open_dataset
from rattn_jax.data.dataset import DatasetSpec
from rattn_jax.errors import UsageError
from rattn_jax.inference.examples import open_split
from rattn_jax.report.scores import Calibration
from rattn_jax.train import train_and_evaluate
from rattn_jax.training import eval_sums, metrics
from rattn_jax.training.losses import label_sets, set_targets, training_losses
from rattn_jax.training.multi_label import Scores, add, begin, measure, nearest_labels
from tests.compare import read_rows
from tests.data.images import encode, pixels
from tests.devices import FOUR, ONE
from tests.tiny import make_config

SETS = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0]], np.uint8)


def test_the_nearest_class_is_that_of_the_largest_logit_among_those_of_the_image():
    logits = jnp.array([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0], [1.0, 5.0, 2.0]])
    assert nearest_labels(logits, SETS[np.array([0, 1, 2])]).tolist() == [1, 2, 1]


def test_images_of_no_class_are_no_right_answers():
    logits, sets = jnp.array([[-4.0, -5.0], [3.0, -5.0]]), jnp.array([[0, 0], [1, 0]], jnp.uint8)

    def count(logits, targets):
        scored = begin(eval_sums.empty(2), 2, 2)
        return add(scored, logits, targets, jnp.ones(2, bool), "devices").sums

    sums = jax.vmap(count, axis_name="devices")(logits[None], sets[None])
    found = jax.tree.map(lambda x: x[0], sums)
    np.testing.assert_array_equal(found.confusion, [[1, 0], [0, 0]])
    assert metrics.compute(found.metrics)["error_top1"] == 0
    low, high = np.asarray(jax.nn.sigmoid(jnp.array([-4.0, 3.0])))
    gap = Calibration(*map(np.asarray, found.calibration)).error()
    assert gap == pytest.approx((low + 1 - high) / 2, rel=1e-5)


def test_the_loss_is_the_mean_of_binary_cross_entropies():
    logits, labels = np.array([[0.0, 1.0, -2.0], [3.0, 0.5, 0.0]]), np.array([1, 2])
    targets = set_targets(jnp.array(labels), SETS, smoothing=0.2)
    np.testing.assert_allclose(targets, SETS[labels] * 0.8 + 0.1, rtol=1e-6)
    p = 1 / (1 + np.exp(-logits))
    terms = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    found = training_losses(jnp.array(logits), targets, loss="sigmoid")
    np.testing.assert_allclose(found, terms.mean(axis=1), rtol=1e-5)
    found = training_losses(jnp.array(logits), targets, (1.0, 0.0, 3.0), "sigmoid")
    np.testing.assert_allclose(found, (np.asarray(terms) * [1, 0, 3]).mean(axis=1), rtol=1e-5)


def test_label_sets_and_the_loss_must_agree():
    several, one = DatasetSpec(3, 8, 9, 9, label_sets=SETS), DatasetSpec(3, 8, 9, 9)
    assert label_sets("softmax", one) is None
    assert label_sets("sigmoid", several) is SETS
    np.testing.assert_array_equal(label_sets("sigmoid", one), np.eye(3))
    with pytest.raises(
        UsageError, match=r"may have several: use --config.loss=sigmoid, or another"
    ):
        label_sets("softmax", several)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "config.loss='hinge' is out of range: it must be 'softmax' or 'sig"),
        ({"dataset": {"label_separator": ""}}, "label_separator='' is out of range: it must be at"),
        (
            {"loss": "sigmoid", "class_weights": "balanced"},
            "'sigmoid' with class_weights, which su",
        ),
        ({"keep_best": {"metric": "f1_macro", "split": "test"}}, "measured with config.loss='sigm"),
        (
            {"keep_best": {"metric": "f1_macro", "split": "test"}, "loss": "sigmoid"},
            r"would keep the worst f1_macro: set config.keep_best.mode=max",
        ),
    ],
)
def test_configs_that_do_not_fit(changes, message):
    config = make_config()
    config.update(changes)
    with pytest.raises(UsageError, match=message):
        parse_config(config)


def test_measures_are_of_the_classes_that_occur():
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], np.uint8)
    scores = np.array([[0.9, 0.2, 0.9], [0.6, 0.7, 0.1], [0.4, 0.8, 0.2], [0.1, 0.9, 0.3]])
    found = measure([Scores(scores[:3], targets[:3]), Scores(scores[3:], targets[3:])])
    precisions = [(1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2]  # ranks 1 and 3; 2 and 3
    f1 = [1 / 2, 4 / 5]  # 1 right, 1 wrong, 1 missed; 2 right, 1 wrong
    expected = {
        "mean_average_precision": np.mean(precisions),
        "f1_macro": np.mean(f1),
        "f1_micro": 6 / 10,  # 3 right, 3 wrong, of which one is of the third class, 1 missed
    }
    assert found == pytest.approx(expected)
    bad = measure([Scores(np.full((4, 3), np.nan), targets)])
    assert all(math.isnan(value) for value in bad.values())
    assert measure([]) == {}
    one = measure([Scores(scores[:, 1:2], targets[:, 1:2])])  # 2 right, 1 wrong, as above
    assert one["f1_macro"] == one["f1_micro"] == pytest.approx(4 / 5)


CLASSES = ("ant", "bee", "cat")


def classes_of(number):
    return [name for i, name in enumerate(CLASSES) if number >> i & 1]


def make_table(folder):
    """Images whose numbers have a bit for each class, and a test part."""
    folder.mkdir()
    for part, numbers in (("train", range(16)), ("test", range(16, 29))):
        rows = []
        for number in numbers:
            file = f"{part}{number}.png"
            (folder / file).write_bytes(encode(pixels(8, 8, seed=number), "PNG"))
            rows.append({"file_name": file, "label": classes_of(number)})
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def make_run(folder, **changes):
    config = make_config(
        modules=0, loss="sigmoid", num_train_steps=2, normalization="imagenet", batch_size=8
    )
    config.dataset.name, config.dataset.image_size = f"table:{folder}", 8
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def check_rows(workdir, folder):
    """The lines of metrics, by scikit-learn, of what the network predicts for the test images."""
    network = rattn_jax.load(workdir)
    test = open_dataset(f"table:{folder}").test
    found = network.predict([example.image for example in test])
    assert np.abs(found.sum(axis=1) - 1).max() > 1e-3, "each class has its own probability"
    targets = np.array([[name in classes_of(n) for name in CLASSES] for n in range(16, 29)])
    order = [int(example.file_name[4:-4]) - 16 for example in test]
    row = read_rows(workdir)[-1]
    expected = {
        "mean_average_precision": average_precision_score(targets[order], found, average="macro"),
        "f1_macro": f1_score(targets[order], found > 0.5, average="macro", zero_division=0),
        "f1_micro": f1_score(targets[order], found > 0.5, average="micro", zero_division=0),
        "error_top1": np.mean(
            [y.any() and not y[np.argmax(p)] for y, p in zip(targets[order], found, strict=True)]
        ),
        "loss": -np.mean(np.where(targets[order], np.log(found), np.log(1 - found))),
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_run_is_measured_as_scikit_learn_does(tmp_path, capsys):
    folder = make_table(tmp_path / "images")
    train_and_evaluate(make_run(folder), tmp_path / "run", ONE)
    check_rows(tmp_path / "run", folder)
    out = capsys.readouterr().out
    assert "images that have none of the classes: 4" in out
    assert "  mAP 0." in out
    with pytest.raises(UsageError, match="this run has several"):
        open_split(rattn_jax.load(tmp_path / "run"), "test")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["shard_map", "pmap"])
def test_a_stream_on_several_devices(tmp_path, parallel):
    folder = make_table(tmp_path / "images")
    config = make_run(folder, dataset__max_resident_bytes=0, parallel=parallel)
    config.keep_best.update({"metric": "mean_average_precision", "mode": "max", "split": "test"})
    config.report = True
    train_and_evaluate(config, tmp_path / "run", FOUR)
    check_rows(tmp_path / "run", folder)
    assert "mean average precision 0." in (tmp_path / "run/report.html").read_text()
