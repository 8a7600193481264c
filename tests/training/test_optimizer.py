import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rattn_jax.config.schema import OptimizerConfig
from rattn_jax.errors import UsageError
from rattn_jax.models import init_variables, stack_modules
from rattn_jax.training.optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from tests.tiny import make_model

constant = optax.constant_schedule
PARAMS = {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([0.5]), "scale": jnp.array([1.5])}


def schedule_of(name, steps, warmup=0, *, peak=0.1):
    config = OptimizerConfig(schedule=name, learning_rate=peak, warmup_steps=warmup)
    return make_schedule(config, steps)


def optimizer_of(name="sgd", rate=0.1, *, stacked=False, **changes):
    config = OptimizerConfig(name=name, **{"weight_decay": 0.0, **changes})
    return make_optimizer(config, constant(rate), stacked=stacked)


@pytest.mark.parametrize(
    ("updates_done", "rate"),
    [
        (0, 0.1),
        (63_999, 0.1),
        (64_000, 0.01),
        (95_999, 0.01),
        (96_000, 0.001),
        (159_999, 0.001),
    ],
)
def test_step_schedule_at_the_boundaries(updates_done, rate):
    schedule = make_schedule(OptimizerConfig(boundaries=(64_000, 96_000)), 160_000)
    np.testing.assert_allclose(schedule(updates_done), rate, rtol=1e-6)


def test_warmup_then_steps():
    config = OptimizerConfig(learning_rate=0.4, warmup_steps=4, boundaries=(10,), step_decay=0.5)
    schedule = make_schedule(config, 20)
    rates = [float(schedule(step)) for step in range(12)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, *[0.4] * 7, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 5])
def test_cosine(warmup):
    schedule = schedule_of("cosine", 25, warmup, peak=0.4)
    expected = [
        0.4 * (step + 1) / warmup
        if step < warmup
        else 0.2 * (1 + math.cos(math.pi * (step - warmup) / (25 - warmup)))
        for step in range(26)
    ]
    np.testing.assert_allclose([schedule(s) for s in range(26)], expected, rtol=1e-5, atol=1e-7)
    assert expected[25] == pytest.approx(0)


@pytest.mark.parametrize("warmup", [0, 5])
def test_linear(warmup):
    schedule = schedule_of("linear", 25, warmup, peak=0.4)
    expected = [
        0.4 * (step + 1) / warmup if step < warmup else 0.4 * (25 - step) / (25 - warmup)
        for step in range(26)
    ]
    np.testing.assert_allclose([schedule(s) for s in range(26)], expected, rtol=1e-5, atol=1e-7)
    assert expected[25] == 0


@pytest.mark.parametrize(("warmup", "peak"), [(0, 30), (14, 14), (20, 20)])
def test_one_cycle(warmup, peak):
    schedule = schedule_of("one_cycle", 100, warmup, peak=0.4)
    rates = np.array([schedule(step) for step in range(101)])
    assert rates.argmax() == peak
    np.testing.assert_allclose(rates[[0, peak, 100]], [0.4 / 25, 0.4, 0.4 / 25e4], rtol=1e-4)
    assert (np.diff(rates[:peak]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    short = schedule_of("one_cycle", 22, 15)
    assert np.argmax([short(step) for step in range(22)]) == 15


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_in_compiled_steps_and_in_runs_that_only_evaluate(name):
    schedule = schedule_of(name, 50, 3)
    for step in (0, 2, 3, 49):
        np.testing.assert_allclose(jax.jit(schedule)(step), schedule(step), rtol=1e-4)
    assert math.isfinite(schedule_of(name, 0)(-1))


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_with_decay_in_the_gradient(nesterov):
    momentum, decay, boundary = 0.9, 0.01, 2
    config = OptimizerConfig(
        learning_rate=0.5,
        boundaries=(boundary,),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decay,
    )
    optimizer = make_optimizer(config, make_schedule(config, 4))
    params = {"bias": jnp.array([2.0, -1.0])}
    state = optimizer.init(params)
    w, velocity = np.array([2.0, -1.0]), np.zeros(2)
    for step in range(4):
        grad = np.array([0.3, 0.1]) * (step + 1)
        updates, state = optimizer.update({"bias": jnp.asarray(grad)}, state, params)
        params = {"bias": params["bias"] + updates["bias"]}
        total = grad + decay * w
        velocity = momentum * velocity + total
        direction = total + momentum * velocity if nesterov else velocity
        w = w - (0.5 if step < boundary else 0.05) * direction
        np.testing.assert_allclose(params["bias"], w, rtol=1e-6)


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_an_update_of_sgd_is_that_of_pytorch(nesterov, decay_norm_and_bias):
    torch = pytest.importorskip("torch", reason="an optional dependency")
    config = OptimizerConfig(
        nesterov=nesterov,
        weight_decay=0.01,
        boundaries=(3,),
        decay_norm_and_bias=decay_norm_and_bias,
    )
    schedule = make_schedule(config, 6)
    optimizer, generator = make_optimizer(config, schedule), np.random.RandomState(0)
    params = init_variables(make_model(modules=0), jax.random.key(0), (8, 8, 3))["params"]
    state = optimizer.init(params)
    for step in range(6):
        grads = jax.tree.map(lambda x: generator.randn(*x.shape).astype(np.float32), params)
        momenta = optax.tree_utils.tree_get(state, "trace")
        updates, state = optimizer.update(grads, state, params)
        changed = optax.apply_updates(params, updates)
        for path, found in jax.tree.leaves_with_path(changed):
            param, grad, momentum = (leaf_at(tree, path) for tree in (params, grads, momenta))
            twin = torch.nn.Parameter(torch.tensor(np.array(param)))
            twin.grad = torch.tensor(grad)
            decays = decay_norm_and_bias or path[-1].key == "kernel"
            twin_optimizer = torch.optim.SGD(
                [twin],
                lr=float(schedule(step)),
                momentum=config.momentum,
                nesterov=nesterov,
                weight_decay=config.weight_decay * decays,
            )
            twin_optimizer.state[twin]["momentum_buffer"] = torch.tensor(np.array(momentum))
            twin_optimizer.step()
            np.testing.assert_allclose(found, twin.detach(), rtol=1e-6, atol=1e-6)
        params = changed


def leaf_at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


def update(optimizer, gradients, params=PARAMS):
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("all_decay", [True, False])
def test_what_decays(name, all_decay):
    """With a decay alone, what decays shrinks and the rest stays."""
    optimizer = optimizer_of(name, weight_decay=0.1, decay_norm_and_bias=all_decay)
    updates = update(optimizer, jax.tree.map(jnp.zeros_like, PARAMS))
    for key, value in updates.items():
        shrinks = np.all(np.sign(value) == -np.sign(PARAMS[key]))
        assert shrinks if all_decay or key == "kernel" else not np.any(value), key


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_norms_of_layers_do_not_fit_stacked_layers(name):
    with pytest.raises(UsageError, match=f"optimizer.name='{name}' .* model.scan_modules=False"):
        optimizer_of(name, stacked=True)


def test_stacked_biases_are_no_kernels():
    module = {"conv": {"kernel": jnp.ones((1, 1, 2, 2))}, "norm": {"bias": jnp.ones(2)}}
    params = stack_modules({"stage1": {"module1": module, "module2": module}})
    optimizer = optimizer_of(weight_decay=0.1, decay_norm_and_bias=False)
    stacked = update(optimizer, jax.tree.map(jnp.zeros_like, params), params)["stage1"]["modules"]
    assert np.all(stacked["conv"]["kernel"] < 0)
    assert not np.any(stacked["norm"]["bias"])


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_goes_down(name):
    optimizer = optimizer_of(name, 0.01, weight_decay=1e-4)

    def loss(params):
        return sum(jnp.sum(value**2) for value in jax.tree.leaves(params))

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(5):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert loss(params) < loss(PARAMS)


def test_momentum_is_used():
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    for name in ("sgd", "lars", "rmsprop"):
        found = []
        for momentum in (0.0, 0.9):
            optimizer = optimizer_of(name, momentum=momentum)
            state = optimizer.init(PARAMS)
            for _ in range(2):
                updates, state = optimizer.update(gradients, state, PARAMS)
            found.append(updates["bias"])
        assert abs(found[1]) > abs(found[0]), name


def test_large_gradients_are_scaled_down_to_the_norm():
    optimizer = optimizer_of(rate=1.0, momentum=0.0, clip_norm=2.0)
    large = {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([4.0]), "scale": jnp.zeros(1)}
    found = update(optimizer, large)
    np.testing.assert_allclose(found["kernel"], [[-1.2, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(found["bias"], [-1.6], rtol=1e-6)
    small = jax.tree.map(lambda x: x / 5, large)
    np.testing.assert_allclose(update(optimizer, small)["bias"], [-0.8], rtol=1e-6)


def test_bad_values():
    with pytest.raises(
        UsageError, match=r"optimizer.name='adm' is unknown: choose one of adamw, l"
    ):
        optimizer_of("adm")
    with pytest.raises(
        UsageError, match=r"optimizer.schedule='cos' is unknown: choose one of cosi"
    ):
        schedule_of("cos", 1)
    with pytest.raises(
        UsageError, match=r"optimizer.warmup_steps=9 must be below num_train_steps=9"
    ):
        schedule_of("cosine", 9, 9)
