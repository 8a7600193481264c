"""Eight devices, quick tracing and compilation, in every test and the processes it starts.

Must come before the first import of JAX, which reads these variables.
"""

import gc
import os
import signal
import tempfile
from importlib.metadata import version

import pytest

# What tests have compiled, for the tests after them and their processes; see `tiny.py`.
_CACHE = tempfile.TemporaryDirectory(prefix="rattn_jax-")

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",  # for profiles, which no test reads
    "TINY_COMPILATION_CACHE": _CACHE.name,
    "NO_PROXY": "localhost,127.0.0.1",  # where the tests' servers are
    "no_proxy": "localhost,127.0.0.1",
}
# Tests compile more than they compute. A program in one piece takes a quarter less time than in
# pieces for several threads, and XLA's older emitters, which jaxlib 0.11.1 has no more, half of it.
_FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, version("jaxlib").split(".")[:3])) < (0, 11, 1):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])

# Ignored where the tests were started in the background of a script, or under nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tracing creates many objects that live on, and little garbage: look for it less often.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def rng():
    import jax

    return jax.random.key(0)
