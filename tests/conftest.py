"""Eight devices and quick compilation in every test. Must come before the first use of JAX."""

import os

import jax
import pytest

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def rng() -> jax.Array:
    return jax.random.key(0)
