"""Compiles functions ahead of time, and keeps what was compiled for later processes.

use_cache(folder / "compilation_cache")
step, seconds = compile_for(step, state, data, rows)
"""

import ctypes
import os
import stat
import sys
import time
from typing import Any, NamedTuple

import jax
from absl import logging
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import is_remote


class Seconds(NamedTuple):
    """Seconds that it took to trace a function, and to compile it or to read it from the cache."""

    tracing: float
    compiling: float


def use_cache(directory: epath.PathLike) -> None:
    """Keeps compiled functions in `directory` (JAX's persistent compilation cache).

    A second start of a run on the same devices and versions reads them instead of compiling. A
    folder of another user is not used; a line says so.

    Raises:
        UsageError: others can write to the folder.
    """
    is_ours = _make_private(epath.Path(directory))
    # An earlier run in this process may have used another directory.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(directory) if is_ours else None)
    # The small functions, too, of which there are hundreds before the first update.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _make_private(directory: epath.Path) -> bool:
    """Creates the folder for this user alone, since what is in it will be run.

    Returns whether it is: some file systems say of all files that they are another user's.

    Raises:
        UsageError: others can write to it.
    """
    if is_remote(directory):
        return True
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.stat(directory)
    except OSError:  # JAX warns of a cache that it cannot write, and training goes on without
        return True
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"the compilation cache {directory} can be written by others (mode {mode:o}), and what "
            f"is in it is run: chmod go-w '{directory}', or choose another "
            "config.compilation_cache_dir"
        )
    if found.st_uid in (0, os.geteuid()):  # root can do everything anyway
        return True
    logging.warning(
        "the compilation cache %s belongs to another user (number %d), and what is in it would be "
        "run: it is not used; choose another config.compilation_cache_dir",
        directory,
        found.st_uid,
    )
    return False


def compile_for(function: Any, *arguments: Any) -> tuple[Any, Seconds]:
    """Compiles a function for arguments of these shapes, on these devices.

    Args:
        function: a function with a `lower` method, as `jax.jit` and `data_parallel` return.
        *arguments: example arguments; they are neither read nor donated.
    """
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    seconds = Seconds(traced - start, time.perf_counter() - traced)
    del lowered
    release_memory()
    return compiled, seconds


def release_memory() -> None:
    """Returns what tracing and compilation have left in memory to the operating system.

    On a CPU it is missing from the peak of training: a process with a train step of Attention-56
    for CIFAR goes from 1,270 to 600 MB, 110 of them what JAX keeps of functions that it has traced.
    Those of others in this process are traced anew when they are called.
    """
    if jax.default_backend() == "cpu":
        jax.clear_caches()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # other C libraries do not have it
            libc.malloc_trim(0)
