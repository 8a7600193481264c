"""A run's network, optimizer, data and compiled functions, for the loop in `run.py`."""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from etils import epath

from rattn_jax.config.schema import RunConfig
from rattn_jax.data import Dataset, dataset_spec
from rattn_jax.data.loaders import Batches, image_sizes, open_loader
from rattn_jax.models import create_model, stack_modules
from rattn_jax.parallel.data_parallel import map_replicas
from rattn_jax.parallel.mesh import AXIS, check_batch_size, make_mesh, replicate, wait_on_cpu
from rattn_jax.runs.console import Progress
from rattn_jax.runs.metrics_log import Recorder
from rattn_jax.runs.saved_run import SavedRun, record_inputs
from rattn_jax.training import evaluation, metrics
from rattn_jax.training.compilation import compile_for
from rattn_jax.training.evaluation import EvalSums
from rattn_jax.training.init_from import start_from
from rattn_jax.training.optimizer import make_optimizer, make_schedule
from rattn_jax.training.profiling import Throughput
from rattn_jax.training.run_report import ReportWriter
from rattn_jax.training.state import TrainState, create_train_state
from rattn_jax.training.steps import (
    Preprocessing,
    UpdateRule,
    eval_steps,
    train_steps,
)


def build_model(config: RunConfig, num_classes: int) -> nn.Module:
    """The network, as it is trained."""
    keywords = config.model.keywords()
    if config.sync_batch_norm:
        keywords["norm_axis_name"] = AXIS
    return create_model(config.model.name, num_classes, **keywords)


def build_optimizer(config: RunConfig) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Schedule of the learning rate, and the optimizer that follows it."""
    optimizer = config.optimizer
    schedule = make_schedule(
        optimizer.schedule,
        learning_rate=optimizer.learning_rate,
        num_train_steps=config.num_train_steps,
        warmup_steps=optimizer.warmup_steps,
        boundaries=optimizer.boundaries,
        decay=optimizer.decay,
    )
    return schedule, make_optimizer(
        optimizer.name,
        schedule,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        decay_norm_and_bias=optimizer.decay_norm_and_bias,
        clip_norm=optimizer.clip_norm,
        stacked=bool(config.model.scan_modules),
        freeze=config.freeze or (),
    )


def build_preprocessing(config: RunConfig, num_classes: int) -> Preprocessing:
    """What training does with a batch."""
    return Preprocessing(
        config.augmentation,
        config.regularization,
        num_classes,
        config.seed,
        config.label_smoothing,
    )


def build_rule(
    config: RunConfig, model: nn.Module, optimizer: optax.GradientTransformation, num_classes: int
) -> UpdateRule:
    """How an update changes the state."""
    return UpdateRule(
        model,
        optimizer,
        build_preprocessing(config, num_classes),
        accumulate_steps=config.accumulate_steps,
        ema_decay=config.ema_decay,
        skip_nonfinite=config.on_nonfinite == "skip",
        freeze_statistics=config.freeze_statistics,
    )


class Trainer:
    """Network, optimizer, data and compiled functions of a config.

    Attributes:
        config: the config.
        mesh: the devices.
        steps_per_call: updates a dispatch, at most.
    """

    def __init__(
        self, config: RunConfig, devices: Sequence[jax.Device], progress: Progress
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
        self._sizes = image_sizes(config.dataset, self._spec)
        self.model = build_model(config, self._spec.num_classes)
        self._schedule, self._optimizer = build_optimizer(config)
        self._compiled: dict[int, Any] = {}  # by the number of updates in a call

    def place(self, dataset: Dataset) -> None:
        """Reads the dataset, or opens a stream of it, and prepares the compiled functions."""
        config, loop = self.config, not self._on_cpu
        self.loader = open_loader(config, dataset, self._sizes, self.mesh)
        by_default = 100 if loop and self.loader.resident else 1
        self.steps_per_call = config.steps_per_call or by_default
        rule = build_rule(config, self.model, self._optimizer, self._spec.num_classes)
        train = partial(train_steps, rule=rule, axis_name=AXIS, loop=loop)
        evaluate = partial(eval_steps, model=self.model, axis_name=AXIS, loop=loop)
        self._train = map_replicas(
            train, self.mesh, config.parallel, num_batches=1, donate_state=True
        )
        self._evaluate = map_replicas(evaluate, self.mesh, config.parallel, num_batches=2)

    def record_inputs(self, folder: epath.Path) -> None:
        """Keeps in the run's folder what its images are scaled and normalised to."""
        record_inputs(folder, self.loader.normalization, self._sizes[1])

    def initial_state(self) -> TrainState:
        """State before the first update, whole on every device."""
        return replicate(self.arrange(self._create_state()), self.mesh)

    def abstract_state(self) -> TrainState:
        """Shapes and types of a state, modules apart, in a fraction of the time of a state."""
        return jax.eval_shape(self._create_state)

    def _create_state(self) -> TrainState:
        return create_train_state(
            jax.random.key(self.config.seed),
            self.model,
            self._optimizer,
            (self._sizes[0], self._sizes[0], 3),
            with_averages=self.config.ema_decay > 0,
        )

    def start(self, source: SavedRun | None, class_names: Sequence[str]) -> TrainState:
        """`initial_state`, with what `source` has learned, if there is one."""
        if source is None:
            return self.initial_state()
        state = start_from(self._create_state(), source, class_names, self._progress.say)
        return replicate(self.arrange(state), self.mesh)

    def arrange(self, state: TrainState) -> TrainState:
        """The state in the form in which the network takes it."""
        return stack_modules(state) if self.config.model.scan_modules else state

    def learning_rate(self, step: int) -> float:
        """Rate of the last of `step` updates."""
        return float(self._schedule(step - 1))

    def train(self, state: TrainState, step: int, end: int, throughput: Throughput) -> TrainState:
        """State after updates `step` ... `end - 1`, on accelerators without waiting for it."""
        with throughput.waiting():
            batches = self.loader.train(step, end - step)
        if not self.loader.resident:
            jax.block_until_ready(state)  # or batches that wait for their turn would pile up
        count = end - step
        if count not in self._compiled:  # which says nothing about the speed
            throughput.stop()
            return self._first_call(jax.block_until_ready(state), batches, count)
        throughput.start()
        throughput.add(count)
        state = wait_on_cpu(state, self.mesh)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            return self._compiled[count](state, batches.data, batches.rows)

    def has_compiled(self, count: int) -> bool:
        """Whether the next `train` of so many updates finds its function compiled."""
        return count in self._compiled

    def _first_call(self, state: TrainState, batches: Batches, count: int) -> TrainState:
        """State after `count` updates, for which there is no compiled function yet."""
        data, rows, _ = batches
        self._compiled[count], seconds = compile_for(self._train, state, data, rows)
        start = time.perf_counter()
        state = jax.block_until_ready(self._compiled[count](state, data, rows))
        self._progress.say(
            f"{'an update' if count == 1 else f'{count} updates'}: traced in "
            f"{seconds.tracing:.1f} s, compiled in {seconds.compiling:.1f} s, run in "
            f"{time.perf_counter() - start:.1f} s"
        )
        return state

    def planned_bytes(self) -> int:
        """Memory on each device of the largest compiled training call, as XLA plans it."""
        plans = [compiled.memory_analysis() for compiled in self._compiled.values()]
        return max(
            plan.temp_size_in_bytes
            + plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            for plan in plans
        )

    def evaluation_rate(self, state: TrainState, split: str) -> float:
        """Images per second of an evaluation, from its first few calls; the first one compiles."""
        sums, rate = replicate(evaluation.empty(self._spec.num_classes), self.mesh), 0.0
        with closing(self.loader.eval(split)) as batches:
            for data, rows, mask in itertools.islice(batches, 3):
                start = time.perf_counter()
                sums = jax.block_until_ready(self._evaluate((state, sums), data, rows, mask))
                rate = mask.size / (time.perf_counter() - start)
        return rate

    def evaluate(
        self, state: TrainState, split: str, recorder: Recorder, stop: Callable[[], bool]
    ) -> EvalSums | None:
        """Evaluates a split, every example once, and records it, unless that is done already.

        Args:
            state: what is evaluated.
            split: name of the split.
            recorder: where to write the line.
            stop: asked before each call; nothing is recorded once it says yes.

        Returns:
            The sums; None if it was stopped.
        """
        start = time.perf_counter()
        sums = replicate(evaluation.empty(self._spec.num_classes), self.mesh)
        for data, rows, mask in self.loader.eval(split):
            if stop():
                return None
            sums = self._evaluate((state, wait_on_cpu(sums, self.mesh)), data, rows, mask)
        counted, num_examples = (
            metrics.count_examples(sums.metrics),
            self.loader.num_examples(split),
        )
        if counted != num_examples:
            raise RuntimeError(f"evaluated {counted} of {num_examples} {split} examples")
        seconds, step = time.perf_counter() - start, int(state.step)
        if not recorder.has(split, step):
            recorder.record(
                step,
                split,
                metrics.summarize(sums.metrics),
                learning_rate=self.learning_rate(step),
                images_per_second=num_examples / seconds,
            )
        return sums

    def report(self, folder: epath.Path, last_step: int) -> ReportWriter:
        """What draws the run's page; see `ReportWriter`."""
        return ReportWriter(
            folder,
            last_step,
            model=self.model,
            loader=self.loader,
            progress=self._progress,
            config=self.config,
        )

    def keep_batch(self, folder: epath.Path, step: int) -> epath.Path:
        """Writes what update `step` was given, before augmentation, for a post-mortem.

        Returns:
            An .npz file with images, uint8 [B, H, W, 3], and labels, int32 [B]: this process's
            share of the batch.
        """
        batch = self.loader.host_batch(step)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"batch_{step}_of_process_{jax.process_index()}.npz"
        with path.open("wb") as file:
            np.savez(file, images=batch.images, labels=batch.labels)
        return path

    def due(self, step: int) -> list[str]:
        """Splits to evaluate after a step: the test split only at the end, if one is held out."""
        if not self.config.validation_examples:
            return ["test"]
        return ["validation", "test"] if step >= self.config.num_train_steps else ["validation"]
