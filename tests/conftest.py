"""Eight devices and quick compilation, in every test and the processes it starts.

Must come before the first import of JAX, which reads these variables.
"""

import os
import tempfile
from importlib.metadata import version

import pytest

# What tests have compiled, for the tests after them and their processes; see `tiny.py`.
_CACHE = tempfile.TemporaryDirectory(prefix="rattn_jax-")

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "TINY_COMPILATION_CACHE": _CACHE.name,
}
# XLA's older emitters compile in half the time of the newer ones, alone since jaxlib 0.11.1.
if tuple(map(int, version("jaxlib").split(".")[:3])) < (0, 11, 1):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"


@pytest.fixture
def rng():
    import jax

    return jax.random.key(0)
