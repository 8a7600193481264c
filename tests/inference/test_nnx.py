"""The example of docs/nnx.md."""

import re
from pathlib import Path

import jax
import numpy as np
from flax import nnx

PAGE = Path(__file__).parents[2] / "docs" / "nnx.md"


def test_nnx_module_computes_what_the_linen_module_computes():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, PAGE, "exec"), names)
    network, module, images = (names[key] for key in ("network", "module", "images"))
    expected = jax.jit(lambda x: network.model.apply(network.variables, x, train=False))(images)
    np.testing.assert_allclose(names["logits"], expected, rtol=1e-5, atol=1e-5)

    def loss(params):
        logits, updates = network.model.apply(
            {"params": params, "batch_stats": network.variables["batch_stats"]},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return -jax.nn.log_softmax(logits)[:, 0].mean(), updates["batch_stats"]

    (value, averages), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        network.variables["params"]
    )
    np.testing.assert_allclose(names["loss"], value, rtol=1e-4)
    found = nnx.to_pure_dict(names["gradients"])["classifier"]["kernel"]
    np.testing.assert_allclose(found, gradients["classifier"]["kernel"], rtol=1e-3, atol=1e-5)
    mean = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))["norm"]["mean"]
    np.testing.assert_allclose(mean, averages["norm"]["mean"], rtol=1e-4, atol=1e-5)
