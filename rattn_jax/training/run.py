"""Runs a config: opens, checks and restores everything, then starts the loop."""

import dataclasses
import math
import shlex
import zlib
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import jax
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from rattn_jax.config.load import parse_config, read_config
from rattn_jax.config.schema import KeepBestConfig, RunConfig
from rattn_jax.data.catalog import build_dataset, build_spec, open_early
from rattn_jax.data.contents import Contents, describe_data, digest, read_contents
from rattn_jax.data.dataset import Dataset
from rattn_jax.data.epochs import counts_epochs, in_steps, named_as_given
from rattn_jax.data.open_loader import check_batch_fits, image_sizes, open_loader
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import (
    check_batch_size,
    find_devices,
    is_main_process,
    is_on_cpu,
    is_same_everywhere,
    make_mesh,
)
from rattn_jax.parallel.preemption import PreemptionGuard
from rattn_jax.parallel.watchdog import Watchdog
from rattn_jax.report.page import PAGE
from rattn_jax.report.scores import percents
from rattn_jax.runs.best import best_step, is_enough
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.runs.checkpointer import Checkpointer
from rattn_jax.runs.console import Console
from rattn_jax.runs.files import absolute, replace_text
from rattn_jax.runs.identity import check_same_run, describe_run
from rattn_jax.runs.lock import lock_run_folder
from rattn_jax.runs.loggers import build_loggers, check_loggers
from rattn_jax.runs.metrics_log import MetricWriter
from rattn_jax.runs.saved_run import SavedRun, kept_normalization, record_inputs
from rattn_jax.runs.workdir import (
    check_run,
    claim_run_folder,
    config_of_run,
    holds_run,
    open_run_folder,
    read_run,
)
from rattn_jax.training.compilation import use_cache
from rattn_jax.training.init_from import (
    describe_source,
    like_source,
    normalization_of,
    open_source,
    start_from,
)
from rattn_jax.training.loop import Job, train
from rattn_jax.training.page_data import PageProbe
from rattn_jax.training.profiling import Profiler, Throughput
from rattn_jax.training.run_report import ReportWriter
from rattn_jax.training.schedule import build_schedule
from rattn_jax.training.state import TrainState
from rattn_jax.training.step_functions import StepFunctions, build_steps, explain_jump


def train_and_evaluate(
    config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None
) -> TrainState:
    """Trains and evaluates, resuming from the latest valid checkpoint in `workdir`.

    Args:
        config: the keys of `configs/default.py`.
        workdir: the run's folder.
        devices: devices to use; None takes all.

    Returns:
        The final state, replicated on every device.

    Raises:
        UsageError: the config, the data or the folder cannot be used.
        DataError: all checkpoints, or too many examples, are damaged.
        SaveError: a checkpoint or metrics could not be written.
        NonfiniteError: an update gave NaN or infinity.
        Preempted: a signal has ended the run, after saving.
    """
    given = like_source(parse_config(config), workdir)
    devices = find_devices() if devices is None else devices
    check_loggers(given.loggers)
    check_save_errors(given)
    check_batch_size(given.batch_size, len(devices), given.accumulate_steps)
    console = Console(batch_size=given.batch_size, quiet=not is_main_process())
    with closing(console), resolve(given, workdir, console) as (resolved, opened):
        console.ends_at(resolved.num_train_steps)
        return _run(resolved, opened, workdir, devices, console)


def check_save_errors(config: RunConfig) -> None:
    """Refuses to go on after a failed save in a job of several processes.

    Raises:
        UsageError: the config asks for that.
    """
    is_training = bool(config.num_train_steps)
    if config.on_save_error == "continue" and is_training and jax.process_count() > 1:
        raise UsageError(
            "config.on_save_error='continue' is for one process: where one of several cannot save, "
            "the others wait for it; set config.on_save_error=stop"
        )


@contextmanager
def resolve(
    given: RunConfig, workdir: epath.PathLike, console: Console
) -> Generator[tuple[RunConfig, Dataset | None]]:
    """Gives the config in updates, and its dataset where that had to be opened for it.

    What an earlier start has decided is as then. Inside, errors name keys as the user gave them.

    Raises:
        UsageError: the dataset cannot be opened, or the folder's record is damaged.
    """
    given = config_of_run(workdir, given, console.say)
    console.enter(f"opening {given.dataset.name}")
    # A set that is prepared may be a part of the published one, and epochs are those of the data.
    opened = open_early(given) or (build_dataset(given) if counts_epochs(given) else None)
    resolved = in_steps(given, opened)
    with named_as_given(given, resolved):
        yield resolved, opened


def _run(
    config: RunConfig,
    opened: Dataset | None,
    workdir: epath.PathLike,
    devices: Sequence[jax.Device],
    console: Console,
) -> TrainState:
    """Opens everything else, the most likely failures first, and trains."""
    mesh, spec = make_mesh(devices), build_spec(config, opened)
    sizes = image_sizes(config.dataset, spec)
    steps = build_steps(_with_length(config, workdir), spec, mesh)
    folder = open_run_folder(workdir, config.to_dict())
    with ExitStack() as stack:
        guard = PreemptionGuard(config.preemption_grace_seconds, console.say)
        preemption = stack.enter_context(guard)
        stack.enter_context(lock_run_folder(folder, console.say))
        console.enter("tracing the network")
        target = steps.abstract_state()
        source = _source(config, steps, folder)
        dataset = _open_dataset(config, opened, folder, console)
        run, contents = _identify(config, dataset, source, folder)
        use_cache(config.compilation_cache_dir or folder / "compilation_cache")
        console.enter(f"reading {config.dataset.name}")
        kept = kept_normalization(folder)
        given = kept or normalization_of(source, sizes)
        loader = stack.enter_context(closing(open_loader(config, dataset, sizes, mesh, given)))
        checkpointer = stack.enter_context(_open_checkpoints(folder, config, run, console))
        state = _restore(checkpointer, target, config, console)
        if state is None:
            state = _first_state(steps, source, dataset.class_names, console)
        # A start that ends in an error of the user's has claimed nothing.
        claim_run_folder(folder, run, contents, devices, console.say)
        if kept is None:
            record_inputs(folder, loader.normalization, sizes.eval)
        _describe(config, target, folder, console)
        step = int(state.step)
        writer = stack.enter_context(_open_writer(config, folder, step, console))
        writer.wait_for_loggers()
        console.enter(None)
        job = Job(
            folder=folder,
            schedule=build_schedule(config, resident=loader.resident, on_cpu=is_on_cpu(mesh)),
            loader=loader,
            steps=steps,
            keep_best=config.keep_best,
            checkpointer=checkpointer,
            writer=writer,
            probe=PageProbe(config, steps.model, loader, steps.rule.preprocessing.label_sets),
            report=ReportWriter(folder, step, config),
            console=console,
            preemption=preemption,
            watchdog=stack.enter_context(closing(Watchdog(config.process_timeout_seconds))),
            profiler=stack.enter_context(Profiler(folder / "profile", config.profile_steps)),
            throughput=Throughput(config.batch_size),
        )
        if not job.schedule.is_over(step) and not is_enough(writer.history, config.keep_best):
            console.say(f"training on {mesh.size} x {devices[0].device_kind}")
        state = train(job, steps.to_device(state))
        _say_result(writer, config.keep_best, console, folder)
    return state


def _with_length(config: RunConfig, workdir: epath.PathLike) -> RunConfig:
    """The config, with the length of the run if it only evaluates: what the schedule goes by."""
    folder = absolute(workdir)
    if config.num_train_steps or not holds_run(folder):
        return config
    return dataclasses.replace(config, num_train_steps=read_run(folder)[0].num_train_steps)


def _open_dataset(
    config: RunConfig, opened: Dataset | None, folder: epath.Path, console: Console
) -> Dataset:
    """Opens the dataset, unless it is open already, and says what it has."""
    console.enter(f"opening {config.dataset.name}")
    dataset = opened or build_dataset(config)
    console.say(dataset.summary())
    if not all_steps(folder / "checkpoints"):
        check_batch_fits(config, dataset)
    return dataset


def _identify(
    config: RunConfig, dataset: Dataset, source: SavedRun | None, folder: epath.Path
) -> tuple[Any, Contents]:
    """What identifies the run and what its data holds; checks that the folder is free for it."""
    contents = read_contents(dataset)
    if not is_same_everywhere(zlib.crc32(digest(contents).encode())):
        raise UsageError(
            f"{dataset.name} has other data in other processes of this job: give all of them the "
            "same"
        )
    data = describe_data(config, dataset, contents) | describe_source(config, source, folder)
    run = describe_run(config.to_dict(), data)
    check_run(folder, run, contents)
    return run, contents


def _open_writer(
    config: RunConfig, folder: epath.Path, step: int, console: Console
) -> MetricWriter:
    console.enter("opening the loggers")
    return MetricWriter(
        folder,
        step,
        console,
        stop_on_error=config.on_save_error == "stop",
        loggers=build_loggers(config.loggers, folder, config.to_dict(), console.say),
    )


def _restore(
    checkpointer: Checkpointer, target: TrainState, config: RunConfig, console: Console
) -> TrainState | None:
    """The state of the latest checkpoint; None without one."""
    console.enter("reading the latest checkpoint")
    state = checkpointer.restore_latest(target)
    if state is None:
        return None
    console.say(f"resuming from the checkpoint of step {int(state.step)}")
    before = read_config(checkpointer.restored["config"])
    if text := explain_jump(before, config, int(state.step), int(state.num_nonfinite)):
        console.say(text)
    return state


def _source(config: RunConfig, steps: StepFunctions, folder: epath.Path) -> SavedRun | None:
    """The run to start from, unless there is a checkpoint to go on from."""
    if config.num_train_steps == 0 and not all_steps(folder / "checkpoints"):
        raise UsageError(
            f"num_train_steps=0 evaluates the latest checkpoint, and {folder} has none: "
            "train first, or choose another workdir"
        )
    return open_source(config, steps.model, folder)


def _open_checkpoints(
    folder: epath.Path, config: RunConfig, run: Any, console: Console
) -> Checkpointer:
    return Checkpointer(
        folder / "checkpoints",
        config.keep_checkpoints,
        record=run,
        compare=check_same_run,
        say=console.say,
        stop_on_error=config.on_save_error == "stop",
    )


def _first_state(
    steps: StepFunctions, source: SavedRun | None, class_names: Sequence[str], console: Console
) -> TrainState:
    """Initial state of a run that has no checkpoint, in the form that is saved."""
    state = steps.initial_state()
    return state if source is None else start_from(state, source, class_names, console.say)


def _describe(config: RunConfig, target: TrainState, folder: epath.Path, console: Console) -> None:
    """Prints what is trained, and writes parameters.txt."""
    console.say(f"{config.model.name} on {config.dataset.name}, in {folder}")
    table = partial(parameter_overview.get_parameter_overview, target.params, include_stats=False)
    if is_main_process():
        replace_text(folder / "parameters.txt", table() + "\n")
    console.say(table(max_lines=12))


def _say_result(
    writer: MetricWriter, keep_best: KeepBestConfig, console: Console, folder: epath.Path
) -> None:
    row = writer.newest("test")
    if row is None:
        return
    best = best_step(writer.history, keep_best, all_steps(folder / "checkpoints"))
    at = f"  best         after {best} steps: --step=best\n" if best is not None else ""
    page = f"  report       {folder / PAGE}\n" if (folder / PAGE).exists() else ""
    rate = math.nan if row["error_top1"] is None else row["error_top1"]
    error, accuracy = percents([rate, 1 - rate])
    console.say(
        f"test error {error} after {row['step']} steps (accuracy {accuracy})\n"
        f"{at}{page}"
        f"  numbers      {folder / 'metrics.jsonl'}\n"
        f"  curves       tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}\n"
        f"  checkpoints  {folder / 'checkpoints'}"
    )
