"""The training loop. The only module that sees the config; below it, everything has keywords."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from rattn_jax import metrics
from rattn_jax.augment import crop_and_flip
from rattn_jax.checkpoint import Checkpoints
from rattn_jax.config_rules import check_config
from rattn_jax.data import Dataset, Split, dataset_spec, load_dataset
from rattn_jax.data.order import evaluation_batches, training_indices
from rattn_jax.errors import UsageError
from rattn_jax.models import create_model, stack_modules, unstack_modules
from rattn_jax.optimizer import sgd, step_schedule
from rattn_jax.parallel import AXIS, check_batch_size, make_mesh, map_replicas, replicate
from rattn_jax.run_folder import open_run_folder, record_run, replace_text
from rattn_jax.steps import ResidentData, eval_steps, train_steps
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
    trainer = Trainer(config, devices)
    folder = open_run_folder(workdir, config.to_dict())
    trainer.place(load_dataset(config.dataset.name, config.data_dir))
    record_run(folder, config.to_dict(), devices)

    progress = Progress(config.num_train_steps, config.batch_size)
    progress.say(f"{config.model.name} on {config.dataset.name}, in {folder}")
    state = trainer.initial_state()
    params = unstack_modules(state.params)
    table = partial(parameter_overview.get_parameter_overview, params, include_stats=False)
    replace_text(folder / "parameters.txt", table() + "\n")
    progress.say(table(max_lines=12))
    with (
        StopSignals() as stop,
        Checkpoints(folder / "checkpoints", config.keep_checkpoints) as checkpoints,
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
                progress.say(f"compiling for {len(devices)} x {devices[0].device_kind}")
                state = _train(trainer, state, checkpoints, recorder, stop)
            elif (recorder.newest("test") or {}).get("step") == start:
                progress.say(f"nothing is left to do: {start} steps are done and evaluated")
            else:
                trainer.evaluate(state, recorder)
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
    while step < total and not stop.requested:
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
            trainer.evaluate(state, recorder)
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

    def __init__(self, config: ConfigDict, devices: Sequence[jax.Device]) -> None:
        check_batch_size(config.batch_size, len(devices))
        self.config = config
        self.mesh = make_mesh(devices)
        on_cpu = devices[0].platform == "cpu"
        self.steps_per_call = config.steps_per_call or (1 if on_cpu else 100)
        self._eval_batches_per_call = 1 if on_cpu else 100
        self._spec = dataset_spec(config.dataset.name)
        keywords = {k: v for k, v in config.model.items() if v is not None and k != "name"}
        if config.sync_batch_norm:
            keywords["norm_axis_name"] = AXIS
        self._model = create_model(config.model.name, self._spec.num_classes, **keywords)
        optimizer = config.optimizer
        self._schedule = step_schedule(
            optimizer.learning_rate, optimizer.boundaries, optimizer.decay
        )
        self._optimizer = sgd(
            self._schedule, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )
        step = partial(
            train_steps,
            loop=not on_cpu,
            model=self._model,
            optimizer=self._optimizer,
            augment=partial(crop_and_flip, **config.augmentation),
            seed=config.seed,
            axis_name=AXIS,
        )
        self._train = map_replicas(step, self.mesh, config.parallel, donate_state=True)
        evaluate = partial(eval_steps, loop=not on_cpu, model=self._model, axis_name=AXIS)
        self._evaluate = map_replicas(evaluate, self.mesh, config.parallel)
        self._compiled: set[int] = set()

    def initial_state(self) -> TrainState:
        """State before the first update, whole on every device."""
        rng = jax.random.key(self.config.seed)
        state = create_train_state(rng, self._model, self._optimizer, self._spec.image_shape)
        return replicate(self.arrange(state), self.mesh)

    def arrange(self, state: TrainState) -> TrainState:
        """The state in the form in which the network takes it."""
        return stack_modules(state) if self.config.model.scan_modules else state

    def place(self, dataset: Dataset) -> None:
        """Puts the dataset on every device."""
        mean = np.mean(dataset.train.images, axis=0, dtype=np.float64)
        mean_image = np.asarray(mean, np.float32)

        def resident(split: Split) -> ResidentData:
            return replicate(ResidentData(split.images, split.labels, mean_image), self.mesh)

        self._train_data, self._test_data = resident(dataset.train), resident(dataset.test)

    def learning_rate(self, step: int) -> float:
        """Rate of the last of `step` updates."""
        return float(self._schedule(step - 1))

    def train(self, state: TrainState, step: int, end: int, throughput: Throughput) -> TrainState:
        """State after updates `step` ... `end - 1`; does not wait for them to be computed."""
        num_examples = len(self._train_data.labels)
        seed, batch_size = self.config.seed, self.config.batch_size
        indices = np.stack(
            [training_indices(seed, s, batch_size, num_examples) for s in range(step, end)]
        )
        if end - step in self._compiled:
            throughput.start()
            throughput.add(indices.size)
            return self._train(state, self._train_data, indices)
        # The first call with this many steps compiles: it says nothing about the speed.
        jax.block_until_ready(state)
        throughput.stop()
        self._compiled.add(end - step)
        return jax.block_until_ready(self._train(state, self._train_data, indices))

    def evaluate(self, state: TrainState, recorder: Recorder) -> None:
        """Evaluates the test split, every example once, and records it."""
        start = time.perf_counter()
        num_examples = len(self._test_data.labels)
        sums = metrics.empty()
        for indices, mask in evaluation_batches(
            self.config.batch_size, num_examples, self._eval_batches_per_call
        ):
            sums = metrics.merge(sums, self._evaluate(state, self._test_data, indices, mask))
        counted = metrics.count_examples(sums)
        if counted != num_examples:
            raise RuntimeError(f"evaluated {counted} of {num_examples} test examples")
        step = int(state.step)
        recorder.record(
            step,
            "test",
            metrics.summarize(sums),
            learning_rate=self.learning_rate(step),
            images_per_second=num_examples / (time.perf_counter() - start),
        )


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
