"""Options of the attention networks: what they change, and what they must not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rattn_jax
from rattn_jax.models import stack_modules, unstack_modules
from tests.variables import random_variables

KEYWORDS = {"widths": (8, 12), "modules_per_stage": (2, 1), "mask_poolings": (2, 1), "t": 1}
IMAGES = np.random.RandomState(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


def make_model(**keywords):
    return rattn_jax.create_model("attention56_cifar", 4, **KEYWORDS, **keywords)


@pytest.fixture(scope="module")
def variables():
    return random_variables(make_model(), IMAGES.shape[1:])


def run(model, variables, *mutable):
    """Gradients of the parameters, logits and updated collections of a training step, float64."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)

    def loss(params):
        logits, updates = model.apply(
            variables | {"params": params},
            IMAGES.astype(np.float64),
            train=True,
            mutable=["batch_stats", *mutable],
        )
        return jnp.sum(jnp.square(logits)), (logits, updates)

    with jax.enable_x64(True):
        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


@pytest.fixture(scope="module")
def plain(variables):
    return run(make_model(), variables, "intermediates")


def evaluate(variables, *mutable, **keywords):
    """Logits in evaluation, and what is mutable, with these keywords."""
    model = make_model(**keywords)
    return jax.jit(partial(model.apply, train=False, mutable=mutable))(variables, IMAGES)


@pytest.fixture(scope="module")
def logits(variables):
    return evaluate(variables)[0]


@pytest.mark.parametrize(
    "keywords",
    [
        pytest.param({"remat": True}, marks=pytest.mark.slow),
        pytest.param({"scan_modules": True}, marks=pytest.mark.slow),
        {"remat": True, "scan_modules": True},
    ],
)
def test_remat_and_scan_change_neither_numbers_nor_names(keywords, variables, plain, logits):
    model = make_model(**keywords)
    own = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max()),
        run(model, variables, "intermediates"),
        plain,
    )
    np.testing.assert_allclose(evaluate(variables, **keywords)[0], logits, rtol=1e-5)


def test_stacked_variables_change_nothing_else(variables, plain):
    stacked = stack_modules(variables)
    assert sorted(stacked["params"]["stage1"]) == ["entry", "exit1", "modules"]
    assert sorted(stacked["params"]["stage2"]) == ["entry", "exit1", "module1"]
    jax.tree.map(np.testing.assert_array_equal, unstack_modules(stacked), variables)
    gradients, (logits, updates) = run(make_model(scan_modules=True), stacked, "intermediates")
    assert "modules" in updates["batch_stats"]["stage1"]
    with jax.enable_x64(True):
        result = unstack_modules((gradients, (logits, updates)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max()),
        result,
        plain,
    )


def test_modules_are_stacked_in_the_order_of_their_numbers():
    stage = {f"module{i}": {"a": jnp.asarray(i)} for i in range(1, 13)}
    stacked = stack_modules({"stage1": dict(sorted(stage.items()))})
    np.testing.assert_array_equal(stacked["stage1"]["modules"]["a"], np.arange(1, 13))
    assert unstack_modules(stacked)["stage1"] == stage


@pytest.mark.parametrize("scan_modules", [False, True])
def test_equal_modules_are_a_loop_only_if_asked(scan_modules, variables):
    model = make_model(scan_modules=scan_modules)
    jaxpr = jax.make_jaxpr(lambda: model.apply(variables, IMAGES, train=False))()
    assert ("scan[" in str(jaxpr)) == scan_modules


def test_masks_can_be_seen(plain):
    _, (_, updates) = plain
    seen = updates["intermediates"]
    assert sorted(seen) == ["stage1", "stage2"]
    assert sorted(seen["stage1"]) == ["module1", "module2"]
    module = seen["stage2"]["module1"]
    assert sorted(module) == ["fused_output", "mask_output", "trunk_output"]
    mask, trunk, fused = (
        np.asarray(module[name][0]) for name in ("mask_output", "trunk_output", "fused_output")
    )
    assert mask.shape == (3, 4, 4, 12)
    assert np.all((mask > 0) & (mask < 1))
    np.testing.assert_allclose(fused, (1 + mask) * trunk, rtol=1e-6)


def test_masks_cost_nothing_unless_asked_for(variables):
    apply = partial(make_model().apply, train=True, mutable=["batch_stats"])
    _, updates = jax.eval_shape(apply, variables, IMAGES)
    assert set(updates) == {"batch_stats"}


def test_naive_attention_learning(variables):
    _, updates = evaluate(variables, "intermediates", attention_residual=False)
    module = updates["intermediates"]["stage1"]["module1"]
    mask, trunk, fused = (
        np.asarray(module[name][0]) for name in ("mask_output", "trunk_output", "fused_output")
    )
    np.testing.assert_allclose(fused, mask * trunk, rtol=1e-6)


@pytest.mark.parametrize("name", ["channel", "spatial"])
def test_mask_activation(name, variables):
    _, updates = evaluate(variables, "intermediates", mask_activation=name)
    mask = updates["intermediates"]["stage1"]["module1"]["mask_output"][0]
    if name == "channel":
        np.testing.assert_allclose(jnp.sum(jnp.square(mask), axis=-1), 1, rtol=1e-4)
    else:
        logits = jnp.log(mask / (1 - mask))
        np.testing.assert_allclose(jnp.mean(logits, axis=(1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(jnp.std(logits, axis=(1, 2)), 1, rtol=1e-3)
