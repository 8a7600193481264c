"""The card of an exported network, and what rounding costs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import rattn_jax
from rattn_jax.errors import UsageError
from rattn_jax.inference.examples import split_logits
from rattn_jax.interop.card import Evaluation, compare, write_card
from rattn_jax.interop.safetensors import export_folder
from rattn_jax.runs import weights_folder


@pytest.fixture(scope="module")
def network():
    return rattn_jax.load("attention56_digits")


@pytest.mark.parametrize("name", rattn_jax.list_pretrained())
def test_cards_of_the_package_are_as_they_would_be_written_now(name):
    network = rattn_jax.load(name)
    record = json.loads((network.folder / "config.json").read_text())
    card = (network.folder / "README.md").read_text()
    (note,) = card.partition("\n\n## Recipe")[0].rsplit("\n\n", 1)[1:]
    evaluation = Evaluation(**record["evaluation"])
    assert card == write_card(network, record, "float32", evaluation, note)


def test_what_float16_costs_is_in_the_card(network, tmp_path):
    evaluation = export_folder(network, tmp_path / "half", dtype="float16", evaluate=True)
    half = rattn_jax.load(tmp_path / "half")
    exact, labels = split_logits(network, "test")
    rounded, _ = split_logits(half, "test")
    assert evaluation == compare("test", labels, rounded, exact)
    assert 0 < evaluation.largest_difference < 0.1
    kernel = network.variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(
        half.variables["params"]["classifier"]["kernel"], kernel.astype(np.float16)
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        half.variables["batch_stats"],
        network.variables["batch_stats"],
    )
    card = (tmp_path / "half" / "README.md").read_text()
    assert f"and {evaluation.largest_difference:.2g} at most from those before rounding" in card
    large = jax.tree.map(lambda x: x * 1e6, network.variables)
    with pytest.raises(UsageError, match=r"--dtype=float16 cannot hold params/.*choose --dtype=f"):
        weights_folder.encode_weights(large, "float16")


def test_card_of_class_names_that_are_not_utf_8(network, tmp_path):
    names = ("caf\udce9", *network.class_names[1:])
    export_folder(dataclasses.replace(network, class_names=names), tmp_path / "out")
    assert r"| classes | 10: caf\udce9, 1, 2" in (tmp_path / "out/README.md").read_text()


def test_names_in_the_card_leave_its_table_whole(network, tmp_path):
    names = ("a|b", "c\nd", "<img>", *network.class_names[3:])
    export_folder(dataclasses.replace(network, class_names=names), tmp_path / "out")
    assert "| classes | 10: a\\|b, c d, &lt;img>, 3" in (tmp_path / "out/README.md").read_text()


def test_card_says_what_was_not_measured(network):
    record = json.loads((network.folder / "config.json").read_text())
    card = write_card(network, record, "float16", None, None)
    assert "| error | not measured" in card
    assert "rounded to float16; what that changes was not measured" in card
    assert "| `optimizer.boundaries` | [400, 525] |" in card
    assert "sampling" not in card
    record["config"]["dataset"]["sampling"] = "balanced"
    record["config"]["dataset"]["label_noise"]["clean_ratio"] = 0.5
    record["config"]["optimizer"] |= {"decay_norm_and_bias": False, "nesterov": False}
    record["config"]["optimizer"]["schedule"] = "linear"
    record["config"]["model"]["attention_residual"] = False
    card = write_card(network, record, "float32", None, None)
    for key, value in (
        ("dataset.sampling", "balanced"),
        ("dataset.label_noise.clean_ratio", 0.5),
        ("optimizer.decay_norm_and_bias", False),
        ("optimizer.nesterov", False),
        ("model.attention_residual", False),
    ):
        assert f"| `{key}` | {value} |" in card
    assert "optimizer.boundaries" not in write_card(network, record, "float32", None, None)


@pytest.mark.parametrize(("fraction", "text"), [(1.0, "100 %"), (0.875, "87.5 %")])
def test_card_says_how_images_are_cropped(network, fraction, text):
    record = json.loads((network.folder / "config.json").read_text())
    cropped = dataclasses.replace(network, crop_fraction=fraction)
    card = write_card(cropped, record, "float32", None, None)
    assert f"the middle square, {text} of the shorter side, scaled to 8x8 pixels |" in card


def test_a_name_of_data_cannot_write_html(network):
    record = json.loads((network.folder / "config.json").read_text())
    record["config"]["dataset"]["name"] = "folder:<img src=x>"
    assert "<img" not in write_card(network, record, "float32", None, None)
