"""The variables of a network before its first update."""

import jax
import jax.numpy as jnp
import numpy as np

from rattn_jax.models import init_variables
from tests.tiny import make_model


def test_they_are_those_of_init():
    model, key = make_model(), jax.random.key(7)
    found = init_variables(model, key, (8, 8, 3))
    # Another program: numbers drawn from the same bits may differ by their rounding.
    expected = model.lazy_init(key, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), train=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_nothing_of_the_forward_pass_is_compiled():
    compiled = []

    def note(event, seconds, **details):
        if "backend_compile" in event:
            compiled.append(details["fun_name"])

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        init_variables(make_model(), jax.random.key(0), (8, 8, 3))
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    kinds = {"_kernel_of", "_normal", "_threefry_fold_in", "_truncated_normal"}
    assert {f"jit({name})" for name in kinds} <= set(compiled)
    assert not any(word in name for name in compiled for word in ("relu", "matmul", "conv_"))
