"""Every network at its real size, traced once: nothing is initialised or run."""

import re
from functools import cache

import jax
import pytest

from rattn_jax import create_model, list_models
from rattn_jax.models.summary import standard_input, trace
from tests.networks import (
    CIFAR_MULTIPLY_ADDS,
    CIFAR_PARAMETERS,
    CONVOLUTIONS,
    IMAGENET_MULTIPLY_ADDS,
    IMAGENET_PARAMETERS,
    SIZES,
)


@cache
def traced(name, size=None, **keywords):
    """Shapes of its variables, and its convolutions and matrix products."""
    standard_size, num_classes = standard_input(name)
    return trace(create_model(name, num_classes, **keywords), size or standard_size)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def total(products):
    return sum(layer.multiply_adds for layer in products)


def test_every_network_is_in_a_table():
    assert set(list_models()) == {*CIFAR_PARAMETERS, *IMAGENET_PARAMETERS} == SIZES.keys()
    assert list_models() == sorted(list_models())
    assert CIFAR_MULTIPLY_ADDS.keys() == CIFAR_PARAMETERS.keys() - {"attention92_port_cifar"}


# Deeper ones differ from these by the number of equal modules.
DEEPER = {
    "attention128_cifar",
    "attention164_cifar",
    "attention236_cifar",
    "attention128",
    "attention164",
    "attention200",
    "attention236",
    "resnet1001_cifar",
}


def each(table, slow=DEEPER):
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in table]


@pytest.mark.parametrize("name", each(CIFAR_PARAMETERS))
def test_parameters_and_multiply_adds_of_cifar_networks(name):
    variables, products = traced(name)
    with_10, with_100 = CIFAR_PARAMETERS[name]
    assert count(variables["params"]) == with_10
    features, num_classes = variables["params"]["classifier"]["kernel"].shape
    assert num_classes == 10
    assert with_10 + 90 * (features + 1) == with_100
    if name in CIFAR_MULTIPLY_ADDS:
        assert total(products) == CIFAR_MULTIPLY_ADDS[name]


def test_classes_change_the_classifier_only():
    for name in ("attention56_cifar", "resnet164_cifar"):
        variables, _ = trace(create_model(name, 100), 32)
        assert count(variables["params"]) == CIFAR_PARAMETERS[name][1]


@pytest.mark.parametrize("name", each(IMAGENET_PARAMETERS))
def test_parameters_of_imagenet_networks(name):
    variables, _ = traced(name)
    assert count(variables["params"]) == IMAGENET_PARAMETERS[name]


@pytest.mark.parametrize("name", each(IMAGENET_MULTIPLY_ADDS, {"attention92", "attentionnext92"}))
def test_multiply_adds_of_imagenet_networks(name):
    _, products = traced(name)
    in_masks = [layer for layer in products if "/mask/" in layer.name]
    found = total(products), total(in_masks), total(traced(name, 320)[1])
    assert found == IMAGENET_MULTIPLY_ADDS[name]
    assert (len(products) - 1, len(in_masks)) == CONVOLUTIONS[name[-2:]]  # one is the classifier


def test_resnet200_takes_the_images_it_is_tested_on():
    assert total(traced("resnet200", 320)[1]) > 2 * total(traced("resnet200")[1])


def test_attentioninception_has_the_size_that_the_paper_reports():
    variables, products = traced("attentioninception56")
    assert count(variables["params"]) == pytest.approx(31.9e6, rel=0.02)
    assert total(products) == pytest.approx(6.3e9, rel=0.03)
    assert total(traced("attentioninception56", 299)[1]) > 1e10


def test_parameters_of_attention452_with_one_decoder_unit():
    """6 equal modules in each stage."""
    keywords = {"mask_decoder_units": 1, "modules_per_stage": (1, 1, 1)}
    params = traced("attention452_cifar", **keywords)[0]["params"]
    modules = count([params[f"stage{i}"]["module1"] for i in (1, 2, 3)])
    assert create_model("attention452_cifar", 10).modules_per_stage == (6, 6, 6)
    assert count(params) + 5 * modules == 8_745_818


@pytest.mark.parametrize(
    "name", ["attention56_cifar", "attention56", "attentionnext56", "attentioninception56"]
)
def test_network_with_local_masks_costs_the_same(name):
    """Within 2 percent, as whole channels allow."""
    local = total(traced(name, mask_structure="local")[1])
    assert local == pytest.approx(total(traced(name)[1]), rel=0.02)


@pytest.mark.parametrize("name", [name for name in list_models() if "inception" not in name])
def test_depth_is_in_the_name(name):
    model = create_model(name, 10)
    assert int(re.search(r"\d+", name)[0]) == model.depth


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("inception_resnet_v1", 5 + 1 + (5 + 10 + 5) * (3 + 1) + 3 + 3 + 1),
        ("inception_resnet_v2", 5 + 3 + (10 + 20 + 10) * (3 + 1) + 3 + 3 + 1 + 1),
    ],
)
def test_depth_is_that_of_the_longest_path(name, depth):
    """Stem, blocks with the convolution after their branches, reductions, features, classifier."""
    assert create_model(name, 10).depth == depth
