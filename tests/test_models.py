import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rattn_jax
from rattn_jax.errors import UsageError
from tests import plain_network

# architecture.md, section 4.1: learnable parameters with 10 and with 100 classes.
PARAMETERS = {
    "attention56_cifar": (1_030_362, 1_053_492),
    "attention92_cifar": (1_841_242, 1_864_372),
    "attention128_cifar": (2_652_122, 2_675_252),
    "attention164_cifar": (3_463_002, 3_486_132),
    "attention236_cifar": (5_084_762, 5_107_892),
    "attention452_cifar": (10_181_210, 10_204_340),
}


def abstract_variables(model, image_shape=(32, 32, 3)):
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return jax.eval_shape(lambda rng, x: model.init(rng, x, train=False), jax.random.key(0), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_variables(model, image_shape):
    """Values for every variable that make no two paths through the net look alike."""
    generator = np.random.RandomState(0)
    shapes = abstract_variables(model, image_shape)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            generator.uniform(0.5, 1.5, leaf.shape)
            if path[-1].key in ("scale", "var")
            else generator.normal(size=leaf.shape) * 0.3,
            jnp.float32,
        ),
        shapes,
    )


def test_every_network_is_in_the_table():
    assert rattn_jax.list_models() == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    counts = tuple(
        count(abstract_variables(rattn_jax.create_model(name, classes))["params"])
        for classes in (10, 100)
    )
    assert counts == PARAMETERS[name]


def test_parameters_of_attention452_with_one_decoder_unit():
    model = rattn_jax.create_model("attention452_cifar", 10, mask_decoder_units=1)
    assert count(abstract_variables(model)["params"]) == 8_745_818


def test_parameters_of_each_part_of_attention56():
    params = abstract_variables(rattn_jax.create_model("attention56_cifar", 10))["params"]
    for stage, entry, module, exit_unit in (
        ("stage1", 4_704, 62_976, 4_544),
        ("stage2", 23_808, 193_408, 17_792),
        ("stage3", 94_720, 554_496, 70_400),
    ):
        parts = params[stage]
        assert [count(parts[part]) for part in ("entry", "module1", "exit1")] == [
            entry,
            module,
            exit_unit,
        ]


def test_names_of_submodules_are_those_of_saved_checkpoints():
    params = abstract_variables(rattn_jax.create_model("attention56_cifar", 10))["params"]
    assert sorted(params) == ["classifier", "norm", "stage1", "stage2", "stage3", "stem"]
    assert sorted(params["stage1"]) == ["entry", "exit1", "module1"]
    module = params["stage1"]["module1"]
    assert sorted(module) == ["mask", "post_unit1", "pre_unit1", "trunk_unit1", "trunk_unit2"]
    assert sorted(module["mask"]) == [
        *(f"decoder{level}_unit1" for level in (1, 2, 3)),
        *(f"encoder{level}_unit1" for level in (1, 2, 3)),
        *("linear1", "linear2", "norm1", "norm2", "skip1_unit1", "skip2_unit1"),
    ]
    unit = params["stage1"]["entry"]
    assert sorted(unit) == ["conv1", "conv2", "conv3", "norm1", "norm2", "norm3", "projection"]
    assert "projection" not in module["pre_unit1"]


@pytest.mark.parametrize(
    ("keywords", "image_shape"),
    [
        ({"widths": (4, 8), "modules_per_stage": (1, 2), "mask_poolings": (2, 1)}, (9, 12, 3)),
        (
            {"widths": (8,), "modules_per_stage": (1,), "mask_poolings": (2,)}
            | {"p": 2, "t": 3, "r": 2, "mask_decoder_units": 1},
            (7, 7, 1),
        ),
    ],
)
def test_network_computes_what_the_specification_says(keywords, image_shape):
    model = rattn_jax.create_model("attention56_cifar", 5, **keywords)
    variables = random_variables(model, image_shape)
    images = jnp.asarray(np.random.RandomState(1).normal(size=(2, *image_shape)), jnp.float32)
    logits = model.apply(variables, images, train=False)
    assert logits.shape == (2, 5)
    assert logits.dtype == jnp.float32
    expected = plain_network.network(variables, images, keywords["mask_poolings"])
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_too_small_images():
    model = rattn_jax.create_model("attention56_cifar", 10)
    with pytest.raises(UsageError, match=r"cannot pool a map of 1x1.*larger images"):
        abstract_variables(model, (4, 4, 3))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"widths": (6, 8, 8)}, r"widths=\(6, 8, 8\): must be multiples of 4"),
        ({"widths": (8, 8)}, r"modules_per_stage=\(1, 1, 1\) is for 3 stages"),
        ({"mask_poolings": (1, 0, 1)}, "must be at least 1"),
        ({"t": 0}, "t=0: must be at least 1"),
        ({"depth": 3}, "has no keyword 'depth': it has attention_residual, .*widths"),
    ],
)
def test_keywords_that_no_network_can_have(keywords, message):
    with pytest.raises(UsageError, match=message):
        rattn_jax.create_model("attention56_cifar", 10, **keywords)


def test_unknown_name():
    with pytest.raises(UsageError, match=r"'attention57_cifar' is unknown.*attention56_cifar"):
        rattn_jax.create_model("attention57_cifar", 10)
