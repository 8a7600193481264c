"""What one size costs; each is measured in a process of its own, whose peak memory it is.

measure("batch", 64, scratch)      # {"work": ..., "compilation": ..., "ms": ..., "peak_mb": ...}
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import jax

from experiments.benchmark_predict import encoded_images
from experiments.pod.step import PlannedStep
from experiments.reproduce.costs import multiply_adds
from rattn_jax.config.load import load_config, parse_config
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.open_loader import image_sizes, open_loader
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.runs.peak_memory import peak_bytes_of_process
from rattn_jax.training.compilation import compile_for

Costs = dict[str, float]

_CALLS, _MOST_SECONDS = 10, 10.0  # whichever comes first
_BATCH_OF_DEPTHS, _BATCH_OF_SIDES, _BATCH_OF_DEVICES = 8, 2, 64
_NUM_CLASSES, _SIDE = 10, 32  # of the folders of images


def measure(axis: str, size: int, scratch: Path) -> Costs:
    """Costs of one size.

    Args:
        axis: one of `AXES`.
        size: see there.
        scratch: a folder for images.
    """
    # glibc reads its settings, and JAX the number of devices, when a process begins.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.environ["JAX_NUM_CPU_DEVICES"] = str(size if axis == "devices" else 1)
    os.environ["JAX_PLATFORMS"] = "cpu"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_in_process, axis, size, scratch).result()


def _in_process(axis: str, size: int, scratch: Path) -> Costs:
    costs = AXES[axis](size, scratch)
    return costs | {"peak_mb": peak_bytes_of_process() / 1e6}


def _batch(size: int, scratch: Path) -> Costs:
    """A train step of Attention-56 for CIFAR at a batch size."""
    return _train_step("cifar10_attention56", f"--config.batch_size={size}")


def _depth(size: int, scratch: Path) -> Costs:
    """A train step of a network for CIFAR, as its config has it."""
    return _train_step(f"cifar10_attention{size}", f"--config.batch_size={_BATCH_OF_DEPTHS}")


def _side(size: int, scratch: Path) -> Costs:
    """A train step of Attention-56 for ImageNet on images of a side in pixels."""
    flags = f"--config.batch_size={_BATCH_OF_SIDES}", f"--config.dataset.image_size={size}"
    return _train_step("imagenet_attention56", *flags)


def _devices(size: int, scratch: Path) -> Costs:
    """The same batch on several devices of one CPU: the difference is their overhead."""
    costs = _train_step("cifar10_attention56", f"--config.batch_size={_BATCH_OF_DEVICES}")
    return costs | {"work": 1.0}


def _train_step(name: str, *flags: str) -> Costs:
    """Seconds of compilation and milliseconds of a step on arrays of zeros."""
    config = parse_config(load_config(name, flags))
    step = PlannedStep(config, jax.devices())
    compiled, seconds = compile_for(step.function, step.state, step.data, step.rows)
    return {
        "work": multiply_adds(config) * config.batch_size,
        "start_s": sum(seconds),
        "ms": 1e3 * step.median_seconds(compiled, _CALLS, _MOST_SECONDS),
    }


def _images(size: int, scratch: Path) -> Costs:
    """From a folder of so many images to the first batch, and the next ones."""
    folder = scratch / f"images{size}"
    if not folder.exists():
        _write_images(folder, size)
    flags = f"--config.dataset.name=folder:{folder}", f"--config.dataset.image_size={_SIDE}"
    config = parse_config(load_config("folder", flags))
    start = time.perf_counter()
    dataset = build_dataset(config)
    sizes = image_sizes(config.dataset, build_spec(config, dataset))
    with closing(open_loader(config, dataset, sizes, make_mesh(jax.devices()))) as loader:
        jax.block_until_ready(loader.train(0, 1).rows)
        seconds = time.perf_counter() - start
    return {"work": float(size), "ms": 1e3 * seconds}


def _write_images(folder: Path, count: int) -> None:
    encoded = encoded_images(_SIDE)
    for split, share in (("train", 0.9), ("val", 0.1)):
        for label in range(_NUM_CLASSES):
            (folder / split / f"class{label}").mkdir(parents=True)
        for i in range(round(count * share)):
            file = folder / split / f"class{i % _NUM_CLASSES}" / f"{i}.jpg"
            file.write_bytes(encoded[i % len(encoded)])


AXES: dict[str, Callable[[int, Path], Costs]] = {
    "batch": _batch,
    "depth": _depth,
    "side": _side,
    "images": _images,
    "devices": _devices,
}
