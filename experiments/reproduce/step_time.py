"""Estimates how long runs will take, at once or from a measured step of each network."""

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax
from ml_collections import ConfigDict

from experiments.pod.step import PlannedStep
from experiments.reproduce import costs
from experiments.reproduce.runs import PlannedRun
from rattn_jax.config.load import parse_config
from rattn_jax.data import dataset_spec

_STEPS, _MOST_SECONDS = 10, 20.0


class StepTimes:
    """Seconds of a step, estimated, or measured once for each network and batch size.

    For a run that has begun, it is the median of its own metrics.

    Args:
        say: called with a line before each measurement; None measures only the machine's speed.
    """

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say
        self._measured: dict[str, float] = {}
        self._speed: float | None = None

    def seconds(self, run: PlannedRun) -> float:
        """Seconds of a step of the run, on this machine."""
        rates = [row["steps_per_sec"] for row in run.rows() if row.get("steps_per_sec")]
        if rates:
            return 1 / statistics.median(rates)
        if self._say is None:
            self._speed = self._speed or costs.measure_speed()
            return costs.step_seconds(parse_config(run.config), self._speed)
        config = run.config
        sizes = (config.batch_size, config.dataset.image_size or config.dataset.name)
        key = json.dumps([config.model.to_dict(), sizes, config.accumulate_steps])
        if key not in self._measured:
            self._say(f"measuring a step of {run.variant.name}")
            self._measured[key] = _in_a_process(_measure, config)
        return self._measured[key]


def seconds_left(run: PlannedRun, step_seconds: float) -> float:
    """Seconds until the run has ended; an evaluated image takes a third of a training image."""
    config = run.config
    steps = config.num_train_steps - run.steps_done()
    num_test = dataset_spec(config.dataset.name, config.data_dir).num_test
    evaluations = -(-steps // config.eval_every_steps)
    return step_seconds * (steps + evaluations * num_test / config.batch_size / 3)


def _in_a_process(function: Callable[[ConfigDict], float], config: ConfigDict) -> float:
    """Calls the function in a process with the settings of main.py, which then ends."""
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, config).result()


def _measure(config: ConfigDict) -> float:
    """Median seconds of a step on arrays of zeros."""
    step = PlannedStep(parse_config(config), jax.devices())
    return step.median_seconds(step.lower().compile(), _STEPS, _MOST_SECONDS)
