import json

import pytest

from rattn_jax.describe import main
from rattn_jax.models import create_model, list_models
from rattn_jax.models.summary import PAPER, describe, layers


def total(products):
    return sum(layer.multiply_adds for layer in products)


def test_multiply_adds_of_each_module():
    products = layers(create_model("attention56", 1000), 224)
    for stage, expected in (
        ("stage1", 1_496_047_616),
        ("stage2", 1_475_575_808),
        ("stage3", 1_393_688_576),
    ):
        module = [layer for layer in products if layer.name.startswith(f"{stage}/module1/")]
        assert total(module) == expected


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
        (["--layers", "--batch-size=8"], "--batch-size is for the memory, which --layers does not"),
        (["attention57"], "rattn describe: model 'attention57' is unknown"),
        (["attention56_cifar", "--input-size=4"], "rattn describe: cannot pool a map of 1x1"),
        (["attention56_cifar", "--input-size=0"], "0: must be at least 1"),
    ],
)
def test_bad_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
