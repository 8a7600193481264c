import json

import pytest

from rattn_jax.describe import PAPER, describe, layers, main
from rattn_jax.models import create_model, list_models

CIFAR_MULTIPLY_ADDS = {
    "attention56_cifar": 122_825_216,
    "attention92_cifar": 211_913_216,
    "attention128_cifar": 301_001_216,
    "attention164_cifar": 390_089_216,
    "attention236_cifar": 568_265_216,
    "attention452_cifar": 984_386_048,
    "resnet164_cifar": 247_646_720,
    "resnet1001_cifar": 1_490_995_712,
    "wrn16_8_cifar": 1_548_145_664,
    "wrn28_10_cifar": 5_243_328_768,
}
# From the authors' files: all and those in masks at 224, all at 320.
IMAGENET_MULTIPLY_ADDS = {
    "attention56": (6_270_836_736, 1_744_920_576, 12_795_494_400),
    "attention92": (10_533_789_696, 3_387_482_112, 21_495_398_400),
    "attentionnext56": (6_419_106_816, 1_748_683_776, 13_098_086_400),
    "attentionnext92": (10_704_337_920, 3_394_255_872, 21_843_456_000),
}
CONVOLUTIONS = {"56": (110, 51), "92": (179, 84)}  # all and those in masks


def total(products):
    return sum(layer.multiply_adds for layer in products)


@pytest.mark.parametrize("name", CIFAR_MULTIPLY_ADDS)
def test_multiply_adds_of_cifar_networks(name):
    assert total(layers(create_model(name, 10), 32)) == CIFAR_MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", IMAGENET_MULTIPLY_ADDS)
def test_multiply_adds_of_imagenet_networks(name):
    model = create_model(name, 1000)
    products = layers(model, 224)
    in_masks = [layer for layer in products if "/mask/" in layer.name]
    at_320 = total(layers(model, 320))
    assert (total(products), total(in_masks), at_320) == IMAGENET_MULTIPLY_ADDS[name]
    assert (len(products) - 1, len(in_masks)) == CONVOLUTIONS[name[-2:]]  # one is the classifier


def test_multiply_adds_of_each_module():
    products = layers(create_model("attention56", 1000), 224)
    for stage, expected in (
        ("stage1", 1_496_047_616),
        ("stage2", 1_475_575_808),
        ("stage3", 1_393_688_576),
    ):
        module = [layer for layer in products if layer.name.startswith(f"{stage}/module1/")]
        assert total(module) == expected


def test_attentioninception_has_the_size_that_the_paper_reports():
    description = describe("attentioninception56")
    assert description.parameters == pytest.approx(31.9e6, rel=0.02)
    assert description.multiply_adds == pytest.approx(6.3e9, rel=0.03)
    assert describe("attentioninception56", input_size=299).multiply_adds > 1e10


def test_multiply_adds_by_hand():
    one_stage = {"widths": (8,), "modules_per_stage": (0,), "mask_poolings": (1,)}
    model = create_model("attention56_cifar", 5, **one_stage)
    products = {layer.name: layer for layer in layers(model, 6)}
    expected = {
        # output positions, kernel positions, inputs, outputs
        "stem": (6 * 6, 9, 3, 16),
        "stage1/entry/conv1": (6 * 6, 1, 16, 2),
        "stage1/entry/conv2": (6 * 6, 9, 2, 2),
        "stage1/entry/conv3": (6 * 6, 1, 2, 8),
        "stage1/entry/projection": (6 * 6, 1, 16, 8),
        "stage1/exit1/conv1": (6 * 6, 1, 8, 2),
        "stage1/exit1/conv2": (6 * 6, 9, 2, 2),
        "stage1/exit1/conv3": (6 * 6, 1, 2, 8),
        "classifier": (1, 1, 8, 5),
    }
    assert list(products) == list(expected)
    for name, (positions, taps, inputs, outputs) in expected.items():
        layer = products[name]
        assert layer.multiply_adds == positions * taps * inputs * outputs
        bias = outputs if name == "classifier" else 0
        assert layer.parameters == taps * inputs * outputs + bias
        assert layer.shape == ((outputs,) if name == "classifier" else (6, 6, outputs))


def test_description():
    description = describe("attention56_cifar", batch_size=2)
    assert description.depth == 56
    assert description.parameters == 1_030_362
    # Scale, bias, mean and variance have the same sizes: 14,880 learnable ones are two of them.
    assert description.parameters_and_statistics == 1_030_362 + 14_880
    assert (description.input_size, description.num_classes) == (32, 10)
    # Twice the images, twice the activations; what does not grow with them is small.
    more = describe("attention56_cifar", batch_size=4).activation_bytes
    assert more == pytest.approx(2 * description.activation_bytes, rel=0.01)


@pytest.mark.parametrize("name", [name for name in list_models() if "inception" not in name])
def test_depth_is_in_the_name(name):
    model = create_model(name, 10)
    assert str(model.depth) in name.replace("_", " ").split("cifar")[0]


def test_paper_has_only_names_that_exist():
    assert set(PAPER) <= set(list_models())


def test_table(capsys):
    main(["wrn16_8_cifar"])
    heading, _, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["network", "input", "depth", "parameters"]
    assert row.split()[:4] == ["wrn16_8_cifar", "32", "16", "10,961,370"]
    assert "11.0 (-0.4 %)" in row


def test_json_of_several(capsys):
    main(["attention56_cifar", "attention92_cifar", "--json", "--input-size=64"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["attention56_cifar", "attention92_cifar"]
    assert [row["paper_parameters"] for row in rows] == [None, 1_900_000]
    assert rows[0]["input_size"] == 64
    assert rows[0]["parameters"] == 1_030_362


def test_layers(capsys):
    main(["attention56_cifar", "--layers"])
    assert "32 x 32 x 16" in capsys.readouterr().out
    main(["attention56_cifar", "--layers", "--json"])
    rows = json.loads(capsys.readouterr().out)["attention56_cifar"]
    assert rows[0] == {
        "name": "stem",
        "shape": [32, 32, 16],
        "parameters": 432,
        "multiply_adds": 442_368,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention57"], "describe: model 'attention57' is unknown"),
        (["attention56_cifar", "--input-size=4"], "describe: cannot pool a map of 1x1"),
        (["attention56_cifar", "--input-size=0"], "0: must be at least 1"),
    ],
)
def test_bad_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
