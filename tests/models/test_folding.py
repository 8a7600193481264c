"""Batch norm folded into convolutions: the same predictions, and what is folded where."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rattn_jax.models import create_model
from rattn_jax.models.folding import fold_batch_norm
from rattn_jax.models.inception_resnet import Blocks, Plan
from rattn_jax.models.layers import BatchNorm, Conv
from tests.tiny import make_model
from tests.variables import random_variables

_TINY_PLAN = Plan(
    stem=(((8, 1),), ((4, 1), (4, 3))),
    blocks=(Blocks(1, (((4, 1),), ((4, 1), (4, (1, 7)))), 0.2),) * 3,
    reductions=((((8, 3),),), (((8, 1), (8, 3)),)),
    features=16,
    plain_last_block=True,
)
# One network with each kind of unit and stem.
NETWORKS = [
    ("attention56_cifar", {"widths": (8,), "modules_per_stage": (1,), "mask_poolings": (1,)}, 8),
    ("attentionnext56", {"widths": (64,), "modules_per_stage": (1,), "mask_poolings": (1,)}, 32),
    (
        "attentioninception56",
        {"widths": (64,), "modules_per_stage": (1,), "mask_poolings": (1,)},
        32,
    ),
    ("resnet152", {"widths": (8,), "units_per_stage": (2,)}, 32),
    ("wrn16_8_cifar", {"widths": (8,), "units_per_stage": (2,)}, 8),
    ("inception_resnet_v2", {"plan": _TINY_PLAN}, 75),
]


@pytest.mark.parametrize(
    ("name", "keywords", "size"), NETWORKS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_logits_stay_the_same(name, keywords, size):
    model = create_model(name, 10, **keywords)
    variables = random_variables(model, (size, size, 3))
    folded = fold_batch_norm(model, variables, (size, size, 3))
    images = np.random.RandomState(1).normal(size=(2, size, size, 3)).astype(np.float32)
    apply = jax.jit(partial(model.apply, train=False))
    expected = apply(variables, images)
    bound = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(apply(folded, images), expected, rtol=0, atol=bound)


def test_what_is_folded_where():
    model = make_model()
    variables = random_variables(model, (8, 8, 3))
    folded = fold_batch_norm(model, variables, (8, 8, 3))
    assert folded.keys() == {"params", "folded"}
    params, norms = flatten_dict(folded["params"]), flatten_dict(folded["folded"])
    assert {path[-1] for path in params} == {"kernel", "bias"}  # bias: of the classifier
    unit = ("stage1", "exit1")
    scale = variables["params"]["stage1"]["exit1"]["norm2"]["scale"]
    var = variables["batch_stats"]["stage1"]["exit1"]["norm2"]["var"]
    kernel = variables["params"]["stage1"]["exit1"]["conv1"]["kernel"]
    np.testing.assert_allclose(
        params[(*unit, "conv1", "kernel")], kernel * scale / np.sqrt(var + 1e-5), rtol=1e-6
    )
    assert (*unit, "norm1", "multiplier") in norms  # reads a sum
    assert (*unit, "norm2", "multiplier") not in norms
    assert {path[-1] for path in norms if path[-2] == "norm2"} == {"shift"}


class TwoReaders(nn.Module):
    """A convolution whose output is read by a batch norm and by something else."""

    @nn.compact
    def __call__(self, x, *, train):
        h = Conv(4, 3, name="conv")(x)
        return BatchNorm(not train, name="norm")(h) + h


def test_a_convolution_with_another_reader_keeps_its_kernel():
    model = TwoReaders()
    variables = random_variables(model, (8, 8, 3))
    folded = fold_batch_norm(model, variables, (8, 8, 3))
    np.testing.assert_array_equal(
        folded["params"]["conv"]["kernel"], variables["params"]["conv"]["kernel"]
    )
    assert folded["folded"]["norm"].keys() == {"multiplier", "shift"}


@pytest.mark.parametrize("vectors", [("shift",), ("shift", "multiplier")])
def test_bfloat16_stays(vectors):
    folded = {"folded": {name: np.full(4, 0.5, np.float32) for name in vectors}}
    x = jnp.ones((1, 2, 2, 4), jnp.bfloat16)
    out = BatchNorm(use_running_average=True).apply(folded, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, np.full(x.shape, 1.0 if "multiplier" in vectors else 1.5))
