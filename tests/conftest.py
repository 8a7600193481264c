"""Eight devices and quick compilation in every test. Must come before the first use of JAX."""

import os
import tempfile

import jax
import pytest

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_disable_most_optimizations", True)

# What tests have compiled, for the tests after them and their processes; see `tiny.py`.
_CACHE = tempfile.TemporaryDirectory(prefix="rattn_jax-")
os.environ["TINY_COMPILATION_CACHE"] = _CACHE.name


@pytest.fixture
def rng() -> jax.Array:
    return jax.random.key(0)
