import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rattn_jax
from rattn_jax.errors import UsageError
from rattn_jax.models.inception_resnet import V1, V2
from rattn_jax.training.metrics import cross_entropy
from tests import plain_network
from tests.variables import abstract_variables, random_variables


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_wiring_of_the_port_has_the_variables_of_the_paper_s():
    for name, size in (("attention56_cifar", 32), ("attention56", 64)):
        paper, port = (
            abstract_variables(rattn_jax.create_model(name, 10, wiring=wiring), (size, size, 3))
            for wiring in ("paper", "port")
        )
        assert paper == port


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


CIFAR, IMAGENET, NEXT = "attention56_cifar", "attention56", "attentionnext56"


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("name", "keywords", "image_shape"),
    [
        (CIFAR, {"widths": (4, 8), "modules_per_stage": (1, 2)}, (9, 12, 3)),
        (
            CIFAR,
            {"widths": (8,), "modules_per_stage": (1,)}
            | {"p": 2, "t": 3, "r": 2, "mask_decoder_units": 1},
            (7, 7, 1),
        ),
        (IMAGENET, {"widths": (8, 12), "modules_per_stage": (1, 1)}, (46, 39, 3)),
        (NEXT, {"widths": (64, 128), "modules_per_stage": (1, 1)}, (45, 32, 3)),
    ],
)
def test_network_computes_what_the_specification_says(name, keywords, image_shape, train):
    """Also on odd maps, where the sizes of pooling and interpolation are easy to get wrong."""
    poolings = (2, 1)[: len(keywords["widths"])]
    model = rattn_jax.create_model(name, 5, mask_poolings=poolings, **keywords)
    variables = random_variables(model, image_shape, np.float64)
    images = np.random.RandomState(1).normal(size=(3, *image_shape))
    stats = None if train else variables["batch_stats"]
    with jax.enable_x64(True):
        run = jax.jit(partial(model.apply, train=train, mutable=["batch_stats"]))
        logits, _ = run(variables, images)
        expected = plain_network.network(variables["params"], stats, images, poolings)
    assert logits.shape == (3, 5)
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


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
        ({"widths": (8, 8, "a")}, "must be whole numbers"),
        ({"unit": "resnext", "widths": (32, 64, 128)}, "must be multiples of 64"),
        ({"unit": "vgg"}, "unit='vgg' is unknown: choose one of preactivation, resnext, incep"),
        ({"mask_activation": "softmax"}, "mask_activation='softmax' is unknown"),
        ({"mask_structure": "none"}, "mask_structure='none' is unknown"),
        ({"wiring": "caffe"}, "wiring='caffe' is unknown: choose one of paper, port"),
        (
            {"wiring": "port", "mask_structure": "local"},
            "mask_structure='local' does not exist with wiring='port': leave it at 'encoder_decod",
        ),
        (
            {"wiring": "port", "unit": "resnext", "widths": (64, 64, 64)},
            "unit='resnext' does not exist with wiring='port': leave it at 'preactivation'",
        ),
        ({"dtype": "float17"}, "dtype='float17': choose one of bfloat16"),
        ({"dtype": "int8"}, "dtype='int8': choose one of bfloat16, float32, float64"),
        ({"dtype": "float16"}, "dtype='float16': choose one of"),
        ({"dtype": "float64"}, "dtype='float64' needs jax.config.update"),
        ({"depth": 3}, "has no keyword 'depth': it has attention_residual, .*widths"),
    ],
)
def test_keywords_that_no_network_can_have(keywords, message):
    with pytest.raises(UsageError, match=message):
        rattn_jax.create_model("attention56_cifar", 10, **keywords)


def test_unknown_name():
    with pytest.raises(UsageError, match=r"'attention57_cifar' is unknown.*attention56_cifar"):
        rattn_jax.create_model("attention57_cifar", 10)


@pytest.mark.parametrize("name", ["resnet152", "inception_resnet_v2"])
def test_keywords_that_a_baseline_cannot_have(name):
    with pytest.raises(UsageError, match=f"model {name} has no keyword 'mask_activation'"):
        rattn_jax.create_model(name, 10, mask_activation="mixed")
    with pytest.raises(UsageError, match="dtype='float17': choose one of bfloat16"):
        rattn_jax.create_model(name, 10, dtype="float17")


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        (
            "resnet164_cifar",
            {"unit": "inception"},
            "unit='inception' is unknown: choose one of",
        ),
        ("resnet164_cifar", {"stem": "none"}, "stem='none' is unknown: choose one of cifar, "),
        ("resnet164_cifar", {"widths": (64, 128)}, r"widths=\(64, 128\) .* one number for each"),
        ("resnext101", {"widths": (32, 64, 128, 256)}, "must be multiples of 64, because of unit="),
        ("wrn16_8_cifar", {"widths": (128, 0, 512)}, "must be at least 1, because"),
    ],
)
def test_keywords_that_no_baseline_can_have(name, keywords, message):
    with pytest.raises(UsageError, match=message):
        rattn_jax.create_model(name, 10, **keywords)


def test_too_small_images_for_inception_resnet():
    with pytest.raises(UsageError, match="must be at least 75"):
        abstract_variables(rattn_jax.create_model("inception_resnet_v1", 10), (74, 80, 3))
    abstract_variables(rattn_jax.create_model("inception_resnet_v1", 10), (75, 75, 3))


# One of each kind, as small as it gets.
SMALL = [
    ("attention56_cifar", {"widths": (8,), "modules_per_stage": (1,)}, 8),
    ("attention56", {"widths": (8,), "modules_per_stage": (1,)}, 16),
    ("attention92_port_cifar", {"widths": (8,), "modules_per_stage": (1,)}, 8),
    ("attentionnext56", {"widths": (64,), "modules_per_stage": (1,)}, 16),
    ("attentioninception56", {"widths": (64,), "modules_per_stage": (1,)}, 16),
    ("resnet164_cifar", {"widths": (8, 16), "units_per_stage": (2, 1)}, 8),
    ("wrn16_8_cifar", {"widths": (8, 16), "units_per_stage": (2, 1)}, 8),
    ("resnet152", {"widths": (8, 16), "units_per_stage": (2, 1)}, 16),
    ("resnext101", {"widths": (64, 128), "units_per_stage": (1, 1)}, 16),
    ("inception_resnet_v1", {}, 75),
]


@pytest.mark.parametrize(
    ("name", "keywords", "size", "dtype"),
    [
        pytest.param(*network, dtype, marks=[pytest.mark.slow] if i and dtype != "float32" else [])
        for i, network in enumerate(SMALL)
        for dtype in ("float32", "bfloat16")
    ],
)
def test_every_parameter_gets_a_gradient(name, keywords, size, dtype):
    if name.startswith("attention"):
        keywords = keywords | {"mask_poolings": (1,)}
    if name == "inception_resnet_v1":
        # One block of each kind after v2's stem: every kind of layer that the two have.
        blocks = tuple(dataclasses.replace(row, count=1) for row in V1.blocks)
        keywords = {"plan": dataclasses.replace(V2, blocks=blocks, features=8)}
    model = rattn_jax.create_model(name, 3, dtype=dtype, **keywords)
    generator = np.random.RandomState(0)
    images = jnp.asarray(generator.normal(size=(4, size, size, 3)), jnp.float32)
    variables = random_variables(model, (size, size, 3))

    @jax.jit
    def run(params):
        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, jnp.arange(4) % 3).mean(), (logits, updates)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (logits, updates) = jax.device_get(run(variables["params"]))
    assert logits.dtype == np.float32
    for leaf in jax.tree.leaves((gradients, updates)):
        assert leaf.dtype == np.float32
        assert np.all(np.isfinite(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


def test_bfloat16_comes_close_to_float32():
    name, keywords, size = SMALL[0]
    images = jnp.asarray(np.random.RandomState(0).normal(size=(4, size, size, 3)), jnp.float32)
    logits = []
    for dtype in ("float32", "bfloat16"):
        model = rattn_jax.create_model(name, 3, dtype=dtype, mask_poolings=(1,), **keywords)
        variables = random_variables(model, (size, size, 3))
        logits.append(jax.jit(partial(model.apply, train=False))(variables, images))
    np.testing.assert_allclose(*logits, atol=0.05 * np.abs(logits[0]).max())
    assert not np.array_equal(*logits)
