"""What a long run needs, tried before it begins: `main.py --selftest`."""

import datetime
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rattn_jax.config.load import parse_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import build_dataset
from rattn_jax.errors import NonfiniteError, SaveError, UsageError
from rattn_jax.models import unstack_modules
from rattn_jax.parallel.mesh import is_main_process, replicate
from rattn_jax.runs.checkpointer import Checkpoints
from rattn_jax.runs.console import Progress
from rattn_jax.runs.files import is_remote
from rattn_jax.runs.workdir import lock_run_folder, open_run_folder
from rattn_jax.training.init_from import open_source
from rattn_jax.training.profiling import Throughput
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import Trainer

_STEPS = 3
_TIMED_STEPS = 10


def selftest(
    config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None
) -> None:
    """Tries devices, data, memory, checkpoints, resuming and speed, and prints a line of each.

    It leaves nothing in the folder, and does not touch a run that is there.

    Args:
        config: the keys of `configs/default.py`.
        workdir: the run's folder.
        devices: devices to use; None takes all.

    Raises:
        UsageError: the config, the data or the folder cannot be used, or memory or disk are too
            small.
        DataError: an image cannot be read.
        SaveError: a checkpoint cannot be written, or is not what is read back.
        NonfiniteError: an update gives NaN or infinity.
    """
    _selftest(parse_config(config), workdir, jax.devices() if devices is None else devices)


def _selftest(config: RunConfig, workdir: epath.PathLike, devices: Sequence[jax.Device]) -> None:
    progress = Progress(config.num_train_steps, config.batch_size, quiet=not is_main_process())

    def passed(what: str, text: str) -> None:
        progress.say(f"ok  {what:12}{text}")

    trainer = Trainer(config, devices, progress)
    folder = open_run_folder(workdir, config.to_dict())
    scratch = folder / ".selftest"
    with lock_run_folder(folder):
        try:
            passed("devices", f"{len(devices)} x {devices[0].device_kind}")
            dataset = build_dataset(config)
            trainer.place(dataset)
            passed("data", f"{len(dataset.train):,} images to train, {len(dataset.test):,} to test")
            sizes = {"test": len(dataset.test), "validation": config.validation_examples}
            with closing(trainer.loader):
                _try_training(trainer, dataset.class_names, scratch, sizes, passed)
        finally:
            if is_main_process() and scratch.exists():
                scratch.rmtree()


def _try_training(
    trainer: Trainer,
    class_names: Sequence[str],
    scratch: epath.Path,
    sizes: Mapping[str, int],
    passed: Callable[[str, str], None],
) -> None:
    """Trains, saves, restores and trains again; `sizes` are those of the splits to evaluate."""
    throughput = Throughput(trainer.config.batch_size)
    state = trainer.start(open_source(trainer.config, trainer.model), class_names)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    _check_disk(scratch.parent, num_bytes, trainer.config.keep_checkpoints, passed)
    state = trainer.train(state, 0, 1, throughput)
    need, limit = trainer.planned_bytes(), _memory_limit(trainer.mesh.local_devices)
    if limit and need > limit:
        raise UsageError(
            f"a step needs {need / 1e9:.1f} GB of memory and there are {limit / 1e9:.1f}: use a "
            "smaller batch_size, model.remat=True or a larger accumulate_steps"
        )
    passed("memory", f"{need / 1e9:.2f} GB for a step" + (f" of {limit / 1e9:.1f}" * bool(limit)))

    with Checkpoints(scratch / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(unstack_modules(state))
    straight = _finite(_train(trainer, state, 1, _STEPS, throughput))
    passed("training", f"{_STEPS} updates, loss {_loss(straight):.4f}")
    target = trainer.abstract_state()
    with Checkpoints(scratch / "checkpoints", keep=1) as checkpoints:
        restored = checkpoints.restore_newest(target)
    if restored is None:
        raise SaveError(f"the checkpoint in {scratch} is gone: look for what removes files there")
    passed("checkpoint", f"{num_bytes / 1e6:,.1f} MB written and read back")
    again = replicate(trainer.arrange(restored), trainer.mesh)
    again = _train(trainer, again, 1, _STEPS, throughput)
    pairs = zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True)
    worst = max(float(np.max(np.abs(a - b), initial=0)) for a, b in pairs)
    if worst > 1e-3:
        raise SaveError(
            f"a resumed run is not the uninterrupted one: parameters differ by up to {worst:.2g}, "
            "and at most 0.001 is rounding"
        )
    passed("resuming", "equal, bit for bit" if worst == 0 else f"equal to {worst:.1g}")
    _project(trainer, again, throughput, sizes, passed)


def _train(
    trainer: Trainer, state: TrainState, step: int, end: int, throughput: Throughput
) -> TrainState:
    """State after updates `step` ... `end - 1`, one a call: a single function to compile."""
    for i in range(step, end):
        state = trainer.train(state, i, i + 1, throughput)
    return state


def _project(
    trainer: Trainer,
    state: TrainState,
    throughput: Throughput,
    sizes: Mapping[str, int],
    passed: Callable[[str, str], None],
) -> None:
    """Says how fast it is, and when the run will end."""
    config = trainer.config
    jax.block_until_ready(state)
    throughput.stop()
    throughput.take()
    state = _train(trainer, state, _STEPS, _STEPS + _TIMED_STEPS, throughput)
    jax.block_until_ready(state)
    throughput.stop()
    speed = throughput.take()
    if speed is None:
        raise RuntimeError("no update was timed")
    seconds = config.num_train_steps / speed.steps_per_sec
    (split,) = trainer.due(0)
    evaluation = sizes[split] / trainer.evaluation_rate(state, split)
    seconds += evaluation * (config.num_train_steps / config.eval_every_steps)
    passed(
        "speed",
        f"{speed.images_per_second:,.0f} images/s, {100 * speed.input_wait_share:.0f} % of the "
        f"time waiting for input; an evaluation takes {evaluation:.1f} s",
    )
    end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    passed(
        "end",
        f"after {datetime.timedelta(seconds=math.ceil(seconds))}, {end:%Y-%m-%d %H:%M}, for "
        f"{config.num_train_steps:,} updates from the first on",
    )


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
    """Bytes of a device's memory; on CPU, of the machine's. 0 if it is not known."""
    if devices[0].platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (devices[0].memory_stats() or {}).get("bytes_limit", 0)


def _finite(state: TrainState) -> TrainState:
    if int(state.num_nonfinite):
        raise NonfiniteError(
            f"the update after step {int(state.nonfinite_step)} gave NaN or infinity: lower the "
            "learning rate, or look at the data"
        )
    return jax.block_until_ready(state)


def _loss(state: TrainState) -> float:
    return float(state.metrics["loss"].compute())
