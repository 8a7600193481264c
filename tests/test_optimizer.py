import jax.numpy as jnp
import numpy as np
import pytest

from rattn_jax.optimizer import sgd, step_schedule


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
    schedule = step_schedule(0.1, (64_000, 96_000), 0.1)
    np.testing.assert_allclose(schedule(updates_done), rate, rtol=1e-6)


def test_sgd_is_nesterov_with_decay_in_the_gradient():
    momentum, decay, boundary = 0.9, 0.01, 2
    optimizer = sgd(step_schedule(0.5, (boundary,), 0.1), momentum=momentum, weight_decay=decay)
    params = {"bias": jnp.array([2.0, -1.0])}
    state = optimizer.init(params)
    w, velocity = np.array([2.0, -1.0]), np.zeros(2)
    for step in range(4):
        grad = np.array([0.3, 0.1]) * (step + 1)
        updates, state = optimizer.update({"bias": jnp.asarray(grad)}, state, params)
        params = {"bias": params["bias"] + updates["bias"]}
        total = grad + decay * w
        velocity = momentum * velocity + total
        w = w - (0.5 if step < boundary else 0.05) * (total + momentum * velocity)
        np.testing.assert_allclose(params["bias"], w, rtol=1e-6)
