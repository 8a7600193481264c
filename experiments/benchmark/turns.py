"""Runs the contenders in separate processes, which take turns."""

import dataclasses
import importlib.util
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from experiments.benchmark.task import (
    COMPILED_TORCH,
    FLAX,
    FOLDED,
    INFERENCE,
    MATMUL,
    ONNX,
    OURS,
    TORCH,
    Ready,
    Run,
    Task,
)
from rattn_jax.errors import UsageError
from rattn_jax.runs.peak_memory import peak_bytes_of_process

# Networks of `torch_twin.NETWORKS` that `flax_twin` can build as well.
_FLAX_NETWORKS = [f"attention{depth}_cifar" for depth in (56, 92, 128, 164, 236)]

Key = tuple[str, bool]  # contender, with huge pages


@dataclasses.dataclass(frozen=True)
class Turns:
    """Measurements of a contender's process.

    Attributes:
        ready: what it reported when it was ready.
        seconds: of a call, float64 [turns].
        peak_bytes: largest resident memory of the process.
    """

    ready: Ready
    seconds: np.ndarray
    peak_bytes: int


def contenders(task: Task, torch_compile: bool) -> tuple[list[str], list[str]]:
    """Names of the contenders that can run the task, and a line about each one that cannot."""
    names, reasons = [OURS], []
    if task.workload == INFERENCE:
        names.append(FOLDED)
    if task.network in _FLAX_NETWORKS and task.dtype == "float32":
        names.append(FLAX)
    else:
        reasons.append(f"{FLAX}: not written for {task.network} in {task.dtype}")
    if importlib.util.find_spec("torch") is None:
        reasons.append(f"{TORCH}: not installed; pip install -e '.[torch]' adds it")
    else:
        names += [TORCH, COMPILED_TORCH] if torch_compile else [TORCH]
    if task.workload == INFERENCE and task.dtype == "float32":
        if importlib.util.find_spec("onnxruntime") is None:
            reasons.append(f"{ONNX}: not installed; pip install -e '.[onnx]' adds it")
        else:
            names.append(ONNX)
    return names, reasons


def take_turns(task: Task, names: list[str], rounds: int, calls_per_round: int) -> dict[Key, Turns]:
    """Runs the contenders and a matrix product, turn by turn.

    On CPU, each contender runs with and without huge pages (a setting of glibc), and the matrix
    product without. The order of the turns is reversed in every second round.
    """
    # One after the other, because compilation is timed as well.
    processes: dict[Key, Connection] = {(MATMUL, False): _start(MATMUL, False, task)}
    ready: dict[Key, Ready] = {key: _answer(key, one) for key, one in processes.items()}
    on_cpu = ready[MATMUL, False].platform == "cpu"
    for huge_pages in (True, False) if on_cpu else (False,):
        for key in ((name, huge_pages) for name in names):
            processes[key] = _start(*key, task)
            ready[key] = _answer(key, processes[key])

    seconds: dict[Key, list[float]] = {key: [] for key in processes}
    order = list(processes)
    for _ in range(rounds):
        for key in order:
            processes[key].send(calls_per_round)
            seconds[key].append(_answer(key, processes[key]))
        order.reverse()
    turns = {}
    for key, process in processes.items():
        process.send(0)
        turns[key] = Turns(ready[key], np.array(seconds[key]), _answer(key, process))
    return turns


def _start(name: str, huge_pages: bool, task: Task) -> Connection:
    context = multiprocessing.get_context("spawn")
    here, remote = context.Pipe()
    # glibc reads its settings when a process begins.
    os.environ["GLIBC_TUNABLES"] = f"glibc.malloc.hugetlb={int(huge_pages)}"
    # On an accelerator all contenders share its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    context.Process(target=_work, args=(remote, name, task), daemon=True).start()
    remote.close()
    return here


def _answer(key: Key, process: Connection) -> Any:
    """What a contender's process sends next.

    Raises:
        UsageError: it has ended; what it has printed says why.
    """
    try:
        return process.recv()
    except EOFError:
        raise UsageError(
            f"the process of {key[0]} has ended, perhaps for want of memory: choose a smaller batch"
        ) from None


def _work(connection: Connection, name: str, task: Task) -> None:
    """A contender's process: makes as many calls as it is asked for, and sends their mean time."""
    run, ready = _prepare(name, task)
    run(1)
    connection.send(ready)
    while count := connection.recv():
        run(1)
        start = time.perf_counter()
        run(count)
        connection.send((time.perf_counter() - start) / count)
    connection.send(peak_bytes_of_process())


def _prepare(name: str, task: Task) -> tuple[Run, Ready]:
    # No process imports another framework, which would add to its memory.
    if name in (TORCH, COMPILED_TORCH):
        from experiments.benchmark import torch_contender

        return torch_contender.prepare(name, task)
    if name == ONNX:
        from experiments.benchmark import onnx_contender

        return onnx_contender.prepare(task)
    from experiments.benchmark import jax_contenders

    if name == MATMUL:
        return jax_contenders.prepare_matrix_product(task.dtype)
    return jax_contenders.prepare(name, task)
