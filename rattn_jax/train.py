"""The training loop. The only module that sees the config; below it, everything has keywords."""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import jax
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from rattn_jax import metrics
from rattn_jax.build import (
    build_dataset,
    build_feed,
    build_model,
    build_optimizer,
    build_recipe,
    image_sizes,
    is_resident,
)
from rattn_jax.checkpoint import Checkpoints
from rattn_jax.compilation import compile_for, use_cache
from rattn_jax.config_rules import check_config
from rattn_jax.data import Dataset, dataset_spec
from rattn_jax.errors import UsageError
from rattn_jax.models import stack_modules, unstack_modules
from rattn_jax.parallel import (
    AXIS,
    agree,
    check_batch_size,
    is_main_process,
    make_mesh,
    map_replicas,
    replicate,
)
from rattn_jax.run_folder import open_run_folder, record_run, replace_text
from rattn_jax.steps import eval_steps, train_steps
from rattn_jax.stop_signals import StopSignals
from rattn_jax.throughput import Throughput
from rattn_jax.train_state import TrainState, create_train_state
from rattn_jax.writers import Progress, Recorder


class StoppedError(Exception):
    """A signal has asked the run to stop; its state is saved."""


def train_and_evaluate(
    config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None
) -> TrainState:
    """Trains and evaluates, going on from the newest checkpoint in `workdir`.

    Args:
        config: the keys of `configs/default.py`.
        workdir: the run's folder.
        devices: devices to use; None takes all.

    Returns:
        The final state, whole on every device.

    Raises:
        UsageError: the config, the data or the folder cannot be used.
        StoppedError: SIGTERM or Ctrl-C has ended the run, after saving.
    """
    devices = jax.devices() if devices is None else devices
    check_config(config)
    progress = Progress(config.num_train_steps, config.batch_size, quiet=not is_main_process())
    trainer = Trainer(config, devices, progress)
    folder = open_run_folder(workdir, config.to_dict())
    dataset = build_dataset(config)
    record_run(folder, config.to_dict(), devices, dataset.describe())
    use_cache(config.compilation_cache_dir or folder / "compilation_cache")
    trainer.place(dataset)

    progress.say(f"{config.model.name} on {config.dataset.name}, in {folder}")
    state = trainer.initial_state()
    params = unstack_modules(state.params)
    table = partial(parameter_overview.get_parameter_overview, params, include_stats=False)
    if is_main_process():
        replace_text(folder / "parameters.txt", table() + "\n")
    progress.say(table(max_lines=12))
    with (
        StopSignals() as stop,
        Checkpoints(folder / "checkpoints", config.keep_checkpoints) as checkpoints,
        closing(trainer.feed),
    ):
        start = checkpoints.newest_step() or 0
        if start:
            progress.say(f"going on from the checkpoint of step {start}")
            restored = checkpoints.restore_newest(unstack_modules(state))
            state = replicate(trainer.arrange(restored), trainer.mesh)
        elif config.num_train_steps == 0:
            raise UsageError(
                f"num_train_steps=0 evaluates the newest checkpoint, and {folder} has none: "
                "train first, or choose another workdir"
            )
        with Recorder(folder, start, progress) as recorder:
            if start < config.num_train_steps:
                progress.say(f"training on {len(devices)} x {devices[0].device_kind}")
                state = _train(trainer, state, checkpoints, recorder, stop)
            else:
                due = trainer.due(start)
                done = agree([recorder.has(split, start) for split in due])
                splits = [split for split, is_done in zip(due, done, strict=True) if not is_done]
                for split in splits:
                    trainer.evaluate(state, split, recorder)
                if not splits:
                    progress.say(f"nothing is left to do: {start} steps are done and evaluated")
            _say_result(recorder, progress, folder)
    if int(state.step) < config.num_train_steps:
        raise StoppedError(f"stopped after step {int(state.step)}, saved: run again to go on")
    return state


def _train(
    trainer: "Trainer",
    state: TrainState,
    checkpoints: Checkpoints,
    recorder: Recorder,
    stop: StopSignals,
) -> TrainState:
    """Trains to the end, or until a stop is requested."""
    config = trainer.config
    total = config.num_train_steps
    periods = (config.log_every_steps, config.eval_every_steps, config.checkpoint_every_steps)
    throughput = Throughput()
    step = int(state.step)
    while step < total and not stop.requested(step):
        end = min(step + trainer.steps_per_call, total, *(p * (step // p + 1) for p in periods))
        state = trainer.train(state, step, end, throughput)
        step = end
        log, evaluate, save = (step % period == 0 or step == total for period in periods)
        if log or evaluate or save:
            jax.block_until_ready(state)
            throughput.stop()
        if log:
            recorder.record(
                step,
                "train",
                metrics.summarize(state.metrics),
                learning_rate=trainer.learning_rate(step),
                images_per_second=throughput.take(),
            )
            empty = replicate(metrics.empty(), trainer.mesh)
            state = dataclasses.replace(state, metrics=empty)
        if evaluate:
            for split in trainer.due(step):
                trainer.evaluate(state, split, recorder)
        if save:  # last, so that a checkpoint has all its lines before it
            checkpoints.save(unstack_modules(state))
    checkpoints.save(unstack_modules(state))
    return state


class Trainer:
    """Network, optimizer, data and compiled functions of a config.

    Attributes:
        config: the config.
        mesh: the devices.
        steps_per_call: updates a dispatch, at most.
    """

    def __init__(
        self, config: ConfigDict, devices: Sequence[jax.Device], progress: Progress
    ) -> None:
        check_batch_size(config.batch_size, len(devices), config.accumulate_steps)
        self.config = config
        self.mesh = make_mesh(devices)
        self._progress = progress
        self._on_cpu = devices[0].platform == "cpu"
        dataset = config.dataset
        self._spec = dataset_spec(
            dataset.name, config.data_dir, test_fraction=dataset.test_fraction
        )
        self._sizes = image_sizes(config, self._spec)
        self._model = build_model(config, self._spec.num_classes)
        self._schedule, self._optimizer = build_optimizer(config)
        self._compiled: dict[int, Any] = {}  # by the number of updates in a call

    def place(self, dataset: Dataset) -> None:
        """Reads the dataset, or opens a stream of it, and prepares the compiled functions."""
        config, loop = self.config, not self._on_cpu
        self.resident = is_resident(config, dataset, self._sizes)
        self.steps_per_call = config.steps_per_call or (100 if loop and self.resident else 1)
        self.feed = build_feed(
            config,
            dataset,
            self._sizes,
            resident=self.resident,
            mesh=self.mesh,
            eval_batches=100 if loop else 1,
        )
        recipe = build_recipe(config, self._spec.num_classes, crops_on_device=self.resident)
        keywords: dict[str, Any] = {"loop": loop, "model": self._model, "axis_name": AXIS}
        train = partial(
            train_steps,
            optimizer=self._optimizer,
            accumulate_steps=config.accumulate_steps,
            ema_decay=config.ema_decay,
            **recipe,
            **keywords,
        )
        self._train = map_replicas(
            train, self.mesh, config.parallel, num_batches=1, donate_state=True
        )
        self._evaluate = map_replicas(
            partial(eval_steps, **keywords), self.mesh, config.parallel, num_batches=2
        )

    def initial_state(self) -> TrainState:
        """State before the first update, whole on every device."""
        rng = jax.random.key(self.config.seed)
        state = create_train_state(
            rng,
            self._model,
            self._optimizer,
            (self._sizes[0], self._sizes[0], 3),
            with_averages=self.config.ema_decay > 0,
        )
        return replicate(self.arrange(state), self.mesh)

    def arrange(self, state: TrainState) -> TrainState:
        """The state in the form in which the network takes it."""
        return stack_modules(state) if self.config.model.scan_modules else state

    def learning_rate(self, step: int) -> float:
        """Rate of the last of `step` updates."""
        return float(self._schedule(step - 1))

    def train(self, state: TrainState, step: int, end: int, throughput: Throughput) -> TrainState:
        """State after updates `step` ... `end - 1`; does not wait for them to be computed."""
        data, rows = self.feed.training(step, end)
        if not self.resident:
            jax.block_until_ready(state)  # or batches that wait for their turn would pile up
        count = end - step
        if count not in self._compiled:  # which says nothing about the speed
            throughput.stop()
            return self._first_call(jax.block_until_ready(state), data, rows, count)
        throughput.start()
        throughput.add(count * self.config.batch_size)
        return self._compiled[count](state, data, rows)

    def _first_call(self, state: TrainState, data: Any, rows: Any, count: int) -> TrainState:
        """State after `count` updates, for which there is no compiled function yet."""
        self._compiled[count], seconds = compile_for(self._train, state, data, rows)
        start = time.perf_counter()
        state = jax.block_until_ready(self._compiled[count](state, data, rows))
        self._progress.say(
            f"{'an update' if count == 1 else f'{count} updates'}: traced in "
            f"{seconds.tracing:.1f} s, compiled in {seconds.compiling:.1f} s, run in "
            f"{time.perf_counter() - start:.1f} s"
        )
        return state

    def evaluate(self, state: TrainState, split: str, recorder: Recorder) -> None:
        """Evaluates a split, every example once, and records it."""
        start = time.perf_counter()
        sums = replicate(metrics.empty(), self.mesh)
        for data, rows, mask in self.feed.evaluation(split):
            sums = self._evaluate((state, sums), data, rows, mask)
        counted, num_examples = metrics.count_examples(sums), self.feed.num_evaluated[split]
        if counted != num_examples:
            raise RuntimeError(f"evaluated {counted} of {num_examples} {split} examples")
        step = int(state.step)
        recorder.record(
            step,
            split,
            metrics.summarize(sums),
            learning_rate=self.learning_rate(step),
            images_per_second=num_examples / (time.perf_counter() - start),
        )

    def due(self, step: int) -> list[str]:
        """Splits to evaluate after a step: the test split only at the end, if one is held out."""
        if not self.config.validation_examples:
            return ["test"]
        return ["validation", "test"] if step >= self.config.num_train_steps else ["validation"]


def _say_result(recorder: Recorder, progress: Progress, folder: epath.Path) -> None:
    row = recorder.newest("test")
    if row is None:
        return
    progress.say(
        f"test error {100 * row['error_top1']:.2f} % after {row['step']} steps\n"
        f"  numbers      {folder / 'metrics.jsonl'}\n"
        f"  curves       tensorboard --logdir {folder / 'tensorboard'}\n"
        f"  checkpoints  {folder / 'checkpoints'}"
    )
