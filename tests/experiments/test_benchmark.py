"""The figures of `experiments.benchmark`, from made-up turns."""

import importlib.util
import multiprocessing

import numpy as np
import pytest

from experiments.benchmark.report import figures, table
from experiments.benchmark.task import FLAX, FOLDED, MATMUL, ONNX, OURS, TORCH, Ready, Task
from experiments.benchmark.turns import Turns, _answer, contenders
from rattn_jax.errors import UsageError

TASK = Task("attention56_cifar", "train", batch_size=64)


def turns(seconds, peak_bytes, operations=None):
    return Turns(Ready("cpu", "cpu", 1.0, 1, operations), np.array(seconds), peak_bytes)


def test_figures():
    found = figures(
        TASK,
        {
            (MATMUL, False): turns([0.1, 0.2, 0.1], 1, operations=1e9),
            (OURS, True): turns([0.2, 0.4, 0.4], 300, operations=1e9),
            (TORCH, True): turns([0.4, 0.4, 0.8], 200),
            (OURS, False): turns([0.4, 0.4, 0.4], 100, operations=1e9),
            (TORCH, False): turns([0.8, 0.8, 0.8], 200),
        },
        calls_per_round=4,
    )
    ours, torch, _, _ = found["results"]
    assert ours["images_per_second"] == pytest.approx(64 / 0.4)
    assert ours["milliseconds_quartiles"] == pytest.approx((300, 400))
    assert ours["speed"] == {TORCH: pytest.approx(2.0)}  # turn by turn: 2, 1, 2
    assert ours["speed_as_shipped"] == {TORCH: pytest.approx(2.0)}  # 4, 2, 2
    assert ours["memory"] == {TORCH: 1.5}
    assert ours["share_of_matmul_rate"] == pytest.approx(0.5)  # 1/2, 1/2, 1/4
    assert torch["share_of_matmul_rate"] == pytest.approx(0.25)  # 1/4, 1/2, 1/8
    assert torch["speed"] == {TORCH: 1.0}
    header, _, _, _, first, *_ = table(found).splitlines()
    assert "10 GFLOP/s" in header
    assert "| 2.00 (2.00) | 1.50 |" in first


def test_a_process_that_has_ended_is_one_line():
    here, remote = multiprocessing.Pipe()
    remote.close()
    with pytest.raises(UsageError, match="the process of PyTorch has ended, perhaps for want of m"):
        _answer(("PyTorch", True), here)


def test_contenders(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "torch" or None)
    assert contenders(TASK, torch_compile=False) == ([OURS, FLAX, TORCH], [])
    inference = Task("attention92", "inference", 1)
    names, (flax, onnx) = contenders(inference, torch_compile=True)
    assert names == [OURS, FOLDED, TORCH, "torch.compile"]
    assert "attention92" in flax
    assert ".[onnx]" in onnx
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "onnxruntime" or None)
    assert contenders(inference, torch_compile=True)[0] == [OURS, FOLDED, ONNX]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names, (torch,) = contenders(TASK, torch_compile=True)
    assert names == [OURS, FLAX]
    assert ".[torch]" in torch
