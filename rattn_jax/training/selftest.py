"""Tests everything that a long run needs before it starts (`rattn selftest`)."""

import dataclasses
import datetime
import itertools
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rattn_jax.config.load import parse_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.dataset import Dataset
from rattn_jax.data.loaders import Loader
from rattn_jax.data.open_loader import check_batch_fits, image_sizes, open_loader
from rattn_jax.errors import NonfiniteError, SaveError, UsageError
from rattn_jax.parallel.mesh import check_batch_size, find_devices, is_main_process, make_mesh
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.console import Console
from rattn_jax.runs.files import is_remote
from rattn_jax.runs.lock import lock_run_folder
from rattn_jax.runs.saved_run import SavedRun, kept_normalization
from rattn_jax.runs.workdir import open_run_folder
from rattn_jax.training.init_from import (
    like_source,
    normalization_of,
    open_source,
    start_from,
)
from rattn_jax.training.profiling import Throughput
from rattn_jax.training.run import check_save_errors, resolve
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import StepFunctions, build_steps

_STEPS = 3
_TIMED_STEPS = 10


def selftest(
    config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None
) -> None:
    """Tests devices, data, memory, checkpoints, resuming and speed, and prints a line for each.

    It leaves nothing in the folder, and does not change a run that is there.

    Args:
        config: the keys of `configs/default.py`.
        workdir: the run's folder.
        devices: devices to use; None takes all.

    Raises:
        UsageError: the config, the data or the folder cannot be used, or memory or disk are too
            small.
        DataError: an image cannot be read.
        SaveError: a checkpoint cannot be written, or reads back differently.
        NonfiniteError: an update gives NaN or infinity.
    """
    given = like_source(parse_config(config), workdir)
    devices = find_devices() if devices is None else devices
    check_save_errors(given)
    check_batch_size(given.batch_size, len(devices), given.accumulate_steps)
    console = Console(batch_size=given.batch_size, quiet=not is_main_process())
    with closing(console), resolve(given, workdir, console) as (resolved, opened):
        _selftest(resolved, opened, workdir, devices, console)


@dataclasses.dataclass(frozen=True)
class _Trial:
    """What is tested, and where the results are printed."""

    config: RunConfig
    steps: StepFunctions
    loader: Loader
    say: Callable[[str], None]

    def passed(self, what: str, text: str) -> None:
        self.say(f"ok  {what:12}{text}")

    def train(
        self, state: TrainState, step: int, end: int, throughput: Throughput | None = None
    ) -> TrainState:
        """Runs updates `step` ... `end - 1`, one per call, so that one function is compiled."""
        throughput = throughput or Throughput(self.config.batch_size)
        for i in range(step, end):
            with throughput.waiting():
                batches = self.loader.train(i, 1)
            if self.steps.is_compiled(batches):
                throughput.start()
                throughput.add(1)
                state = self.steps.train(state, batches)
            else:
                state, text = self.steps.train_first(state, batches)
                self.say(text)
        return state


def _selftest(
    config: RunConfig,
    opened: Dataset | None,
    workdir: epath.PathLike,
    devices: Sequence[jax.Device],
    console: Console,
) -> None:
    mesh, spec = make_mesh(devices), build_spec(config, opened)
    sizes, steps = image_sizes(config.dataset, spec), build_steps(config, spec, mesh)
    length = max(config.num_train_steps, _STEPS + _TIMED_STEPS)  # of a stream
    folder = open_run_folder(workdir, config.to_dict())
    scratch = folder / ".selftest"
    with lock_run_folder(folder, console.say):
        try:
            console.say(f"ok  {'devices':12}{len(devices)} x {devices[0].device_kind}")
            dataset = opened or build_dataset(config)
            check_batch_fits(config, dataset)
            console.enter(f"reading {config.dataset.name}")
            longer = dataclasses.replace(config, num_train_steps=length)
            source = open_source(config, steps.model, folder)
            kept = kept_normalization(folder) or normalization_of(source, sizes)
            with closing(open_loader(longer, dataset, sizes, mesh, kept)) as loader:
                trial = _Trial(config, steps, loader, console.say)
                trial.passed("data", dataset.summary())
                console.enter("trying an update")
                state = _try_memory(trial, folder, source, dataset.class_names)
                console.enter("trying a checkpoint")
                state = _try_checkpoint(trial, state, scratch)
                console.enter("measuring the speed")
                _project(trial, state, config.validation_examples or len(dataset.test))
        finally:
            if is_main_process() and scratch.exists():
                scratch.rmtree()


def _try_memory(
    trial: _Trial, folder: epath.Path, source: SavedRun | None, class_names: Sequence[str]
) -> TrainState:
    """Checks memory and disk space; returns the state after the first update."""
    config, steps = trial.config, trial.steps
    initial = steps.initial_state()
    if source is not None:
        initial = start_from(initial, source, class_names, trial.say)
    state = steps.to_device(initial)
    _check_disk(folder, _num_bytes(state), config.keep_checkpoints, trial.passed)
    state = trial.train(state, 0, 1)
    need, limit = steps.planned_bytes(), _memory_limit(steps.mesh.local_devices)
    if limit and need > limit:
        raise UsageError(
            f"a step needs {need / 1e9:.1f} GB of memory and there are {limit / 1e9:.1f}: use a "
            "smaller batch_size, model.remat=True or a larger accumulate_steps"
        )
    trial.passed(
        "memory", f"{need / 1e9:.2f} GB for a step" + (f" of {limit / 1e9:.1f}" * bool(limit))
    )
    return state


def _try_checkpoint(trial: _Trial, state: TrainState, scratch: epath.Path) -> TrainState:
    """Checks that a restored checkpoint trains to the same state, which is returned."""
    steps = trial.steps
    with Checkpointer(scratch / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(steps.to_saved(state))
    straight = _finite(trial.train(state, 1, _STEPS))
    trial.passed("training", f"{_STEPS} updates, loss {_loss(straight):.4f}")
    with Checkpointer(scratch / "checkpoints", keep=1) as checkpoints:
        restored = checkpoints.restore_latest(steps.abstract_state())
    if restored is None:
        raise SaveError(f"the checkpoint in {scratch} is gone: look for what removes files there")
    trial.passed("checkpoint", f"{_num_bytes(straight) / 1e6:,.1f} MB written and read back")
    again = trial.train(steps.to_device(restored), 1, _STEPS)
    pairs = zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True)
    worst = max(float(np.max(np.abs(a - b), initial=0)) for a, b in pairs)
    if worst > 1e-3:
        raise SaveError(
            f"a resumed run is not the uninterrupted one: parameters differ by up to {worst:.2g}, "
            "and at most 0.001 is rounding"
        )
    trial.passed("resuming", "equal, bit for bit" if worst == 0 else f"equal to {worst:.1g}")
    return again


def _project(trial: _Trial, state: TrainState, num_evaluated: int) -> None:
    """Measures the speed, and projects the end of the run."""
    config, throughput = trial.config, Throughput(trial.config.batch_size)
    jax.block_until_ready(state)
    state = trial.train(state, _STEPS, _STEPS + _TIMED_STEPS, throughput)
    jax.block_until_ready(state)
    throughput.stop()
    speed = throughput.take()
    if speed is None:
        raise RuntimeError("no update was timed")
    seconds = config.num_train_steps / speed.steps_per_sec
    evaluation = num_evaluated / _evaluation_rate(trial, state)
    seconds += evaluation * (config.num_train_steps / config.eval_every_steps)
    trial.passed(
        "speed",
        f"{speed.images_per_second:,.0f} images/s, {100 * speed.input_wait_share:.0f} % of the "
        f"time waiting for input; an evaluation takes {evaluation:.1f} s",
    )
    end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    trial.passed(
        "end",
        f"after {datetime.timedelta(seconds=math.ceil(seconds))}, {end:%Y-%m-%d %H:%M}, for "
        f"{config.num_train_steps:,} updates from the first on",
    )


def _evaluation_rate(trial: _Trial, state: TrainState) -> float:
    """Images per second of an evaluation, from its first calls, without compilation."""
    split = "validation" if trial.config.validation_examples else "test"
    sums, rate = trial.steps.empty_sums(), 0.0
    with closing(trial.loader.eval(split)) as batches:
        for batch in itertools.islice(batches, 3):
            start, compiled = time.perf_counter(), trial.steps.eval_compile_seconds
            sums = jax.block_until_ready(trial.steps.evaluate(state, sums, batch))
            compiling = trial.steps.eval_compile_seconds - compiled
            rate = batch.mask.size / (time.perf_counter() - start - compiling)
    return rate


def _check_disk(
    folder: epath.Path, num_bytes: int, keep: int, passed: Callable[[str, str], None]
) -> None:
    if is_remote(folder):
        passed("disk", f"{num_bytes / 1e6:,.1f} MB a checkpoint, in an object store")
        return
    free, need = shutil.disk_usage(folder).free, (keep + 1) * num_bytes
    if need > free:
        raise UsageError(
            f"workdir {folder} has {free / 1e9:.2f} GB left and {keep + 1} checkpoints need "
            f"{need / 1e9:.2f}: free space, or lower keep_checkpoints"
        )
    passed("disk", f"{free / 1e9:,.0f} GB left, {keep + 1} checkpoints need {need / 1e9:.2f}")


def _memory_limit(devices: Sequence[jax.Device]) -> int:
    """Bytes of memory of a device, or of the machine on CPU; 0 if unknown."""
    if devices[0].platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (devices[0].memory_stats() or {}).get("bytes_limit", 0)


def _num_bytes(state: TrainState) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def _finite(state: TrainState) -> TrainState:
    if int(state.num_nonfinite):
        raise NonfiniteError(
            f"the update after step {int(state.nonfinite_step)} gave NaN or infinity: lower the "
            "learning rate, or look at the data"
        )
    return jax.block_until_ready(state)


def _loss(state: TrainState) -> float:
    return float(state.metrics["loss"].compute())
