"""Compiled train and eval steps of a config.

steps = build_steps(config, spec, mesh)
state = steps.to_device(steps.initial_state())
state = steps.train(state, loader.train(step, count))
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.batches import StreamedData
from rattn_jax.data.dataset import DatasetSpec
from rattn_jax.data.loaders import Batches
from rattn_jax.data.open_loader import image_sizes
from rattn_jax.models import create_model, stack_modules, unstack_modules
from rattn_jax.parallel.data_parallel import data_parallel
from rattn_jax.parallel.mesh import DATA_AXIS, is_on_cpu, replicate, wait_on_cpu
from rattn_jax.training import eval_sums
from rattn_jax.training.compilation import compile_for
from rattn_jax.training.eval_sums import EvalSums
from rattn_jax.training.losses import class_weights, label_sets
from rattn_jax.training.multi_label import ScoredSums
from rattn_jax.training.optimizer import is_by_value, make_optimizer, make_schedule
from rattn_jax.training.state import TrainState, create_train_state
from rattn_jax.training.steps import Preprocessing, UpdateRule, eval_steps, train_steps


class StepFunctions:
    """Compiled steps of a run, and conversions of its state between disk and devices.

    Args:
        rule: how an update changes the state.
        schedule: learning rate as a function of the number of updates done.
        mesh: devices.
        create_state: creates the initial state, with modules unstacked.
        parallel: see `data_parallel`.
        stacks_modules: whether the network expects equal modules stacked.
        use_scan: whether the updates of a call are a compiled loop; see `train_steps`.

    Attributes:
        rule: see above.
        model: the network.
        mesh: see above.
        train_function: function of (state, data, rows), not compiled.
        eval_compile_seconds: time that compiling the eval step has taken so far.
    """

    def __init__(
        self,
        rule: UpdateRule,
        schedule: optax.Schedule,
        mesh: Mesh,
        create_state: Callable[[], TrainState],
        *,
        parallel: str,
        stacks_modules: bool,
        use_scan: bool,
    ) -> None:
        self.rule, self.model, self.mesh = rule, rule.model, mesh
        self._schedule, self._create_state = schedule, create_state
        self._stacks_modules = stacks_modules
        train = partial(train_steps, rule=rule, axis_name=DATA_AXIS, use_scan=use_scan)
        evaluate = partial(
            eval_steps,
            model=rule.model,
            axis_name=DATA_AXIS,
            use_scan=use_scan,
            label_sets=rule.preprocessing.label_sets,
        )
        self.train_function = data_parallel(train, mesh, parallel, num_batches=1, donate_state=True)
        self._evaluate = data_parallel(evaluate, mesh, parallel, num_batches=2)
        self._compiled: dict[int, Any] = {}  # by the number of updates in a call
        self._compiled_eval: dict[str, Any] = {}  # by the shapes of split and batches
        self.eval_compile_seconds = 0.0

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state as it is saved, without computing it."""
        return jax.eval_shape(self._create_state)

    def initial_state(self) -> TrainState:
        """The initial state, in the form that is saved."""
        return self._create_state()

    def arrange(self, state: TrainState) -> TrainState:
        """Converts a saved state to the form that the network expects."""
        return stack_modules(state) if self._stacks_modules else state

    def to_device(self, state: TrainState) -> TrainState:
        """Converts a saved state and replicates it on every device."""
        return replicate(self.arrange(state), self.mesh)

    def to_saved(self, state: TrainState) -> TrainState:
        """The inverse of `arrange`: the form of checkpoints, with modules unstacked."""
        return unstack_modules(state)

    def learning_rate(self, state: TrainState) -> float:
        """Learning rate of the last update that was not skipped: skipped ones do not count."""
        return float(self._schedule(int(state.step) - int(state.num_nonfinite) - 1))

    def is_compiled(self, batches: Batches) -> bool:
        """Whether the train step for this number of updates has been compiled."""
        return _count(batches) in self._compiled

    def train(self, state: TrainState, batches: Batches) -> TrainState:
        """Runs an update with each batch. On accelerators this does not wait for the result.

        The step must be compiled: the first call with a number of batches is `train_first`.

        Args:
            state: state before the updates; its memory is reused.
            batches: batches from the loader of the run.
        """
        if isinstance(batches.data, StreamedData):
            jax.block_until_ready(state)  # otherwise batches would queue up in memory
        state = wait_on_cpu(state, self.mesh)
        return self._compiled[_count(batches)](state, batches.data, batches.rows)

    def train_first(self, state: TrainState, batches: Batches) -> tuple[TrainState, str]:
        """Compiles the train step, then calls `train`; also returns a line about the time taken."""
        jax.block_until_ready(state)
        count, arguments = _count(batches), (state, batches.data, batches.rows)
        self._compiled[count], seconds = compile_for(self.train_function, *arguments)
        start = time.perf_counter()
        state = jax.block_until_ready(self.train(state, batches))
        return state, (
            f"{'an update' if count == 1 else f'{count} updates'}: traced in "
            f"{seconds.tracing:.1f} s, compiled in {seconds.compiling:.1f} s, run in "
            f"{time.perf_counter() - start:.1f} s"
        )

    def planned_bytes(self) -> int:
        """Memory per device of the largest compiled train step, as planned by XLA."""
        plans = [compiled.memory_analysis() for compiled in self._compiled.values()]
        return max(
            plan.temp_size_in_bytes
            + plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            for plan in plans
        )

    def empty_sums(self) -> EvalSums:
        """Empty sums of an evaluation, on every device."""
        return replicate(eval_sums.empty(self.rule.preprocessing.num_classes), self.mesh)

    def evaluate(
        self, state: TrainState, sums: EvalSums | ScoredSums, batches: Batches
    ) -> EvalSums | ScoredSums:
        """Adds batches to the sums; with the sigmoid loss the result has their scores, too."""
        sums = sums.sums if isinstance(sums, ScoredSums) else sums
        arguments = ((state, wait_on_cpu(sums, self.mesh)), *batches)
        shapes = str(jax.tree.map(jnp.shape, batches))
        if shapes not in self._compiled_eval:
            self._compiled_eval[shapes], seconds = compile_for(self._evaluate, *arguments)
            self.eval_compile_seconds += sum(seconds)
        return self._compiled_eval[shapes](*arguments)


def _count(batches: Batches) -> int:
    return len(jax.tree.leaves(batches.rows)[0])


def build_steps(
    config: RunConfig, spec: DatasetSpec, mesh: Mesh, *, use_scan: bool | None = None
) -> StepFunctions:
    """The steps of a run.

    Args:
        config: the run's config.
        spec: description of its dataset.
        mesh: devices.
        use_scan: whether the updates of a call are a compiled loop; None: except on CPU, where
            that is slow.

    Raises:
        UsageError: the config of network, optimizer or images is invalid.
    """
    size = image_sizes(config.dataset, spec).train
    model = build_model(config, spec.num_classes)
    schedule, optimizer = build_optimizer(config)
    preprocessing = Preprocessing(
        config.augmentation,
        config.regularization,
        spec.num_classes,
        config.label_smoothing,
        config.num_train_steps,
        label_sets(config.loss, spec),
    )
    rule = UpdateRule(
        model,
        optimizer,
        preprocessing,
        accumulate_steps=config.accumulate_steps,
        ema_decay=config.ema_decay,
        skip_nonfinite=config.on_nonfinite == "skip",
        freeze_batch_norm=config.freeze_batch_norm,
        by_value=is_by_value(config.optimizer.name) and not config.freeze,
        class_weights=class_weights(config.class_weights, spec),
    )

    def create_state() -> TrainState:
        with _on_host_cpu(mesh):
            return create_train_state(
                jax.random.key(config.seed),
                model,
                optimizer,
                (size, size, 3),
                with_averages=config.ema_decay > 0,
            )

    return StepFunctions(
        rule,
        schedule,
        mesh,
        create_state,
        parallel=config.parallel,
        stacks_modules=bool(config.model.scan_modules),
        use_scan=not is_on_cpu(mesh) if use_scan is None else use_scan,
    )


def _on_host_cpu(mesh: Mesh) -> AbstractContextManager[Any]:
    """Runs what follows on the host's CPU: hundreds of small functions to compile."""
    try:
        cpus = jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        return nullcontext()
    return nullcontext() if is_on_cpu(mesh) else jax.default_device(cpus[0])


def build_model(config: RunConfig, num_classes: int) -> nn.Module:
    """Creates the network for training."""
    keywords = config.model.keywords()
    if config.sync_batch_norm:
        keywords["norm_axis_name"] = DATA_AXIS
    return create_model(config.model.name, num_classes, **keywords)


def explain_jump(before: RunConfig, now: RunConfig, step: int, num_skipped: int = 0) -> str | None:
    """A line if another length of the run makes the learning rate jump.

    Args:
        before: the config until now.
        now: the config to go on with.
        step: number of updates done.
        num_skipped: how many of them were skipped, which the schedule does not count.

    Returns:
        The line; None if the rate goes on as it would have, within 1 %, or no update is left.
    """
    if not 0 < step < now.num_train_steps:
        return None
    old, new = (build_optimizer(config)[0] for config in (before, now))
    count = step - num_skipped
    if count < 1 or math.isclose(old(count - 1), new(count - 1), rel_tol=0.01):
        return None
    return (
        f"the learning rate jumps from {float(old(count - 1)):.3g} in update {step} to "
        f"{float(new(count)):.3g} in the next: optimizer.schedule={now.optimizer.schedule!r} spans "
        f"num_train_steps, which was {before.num_train_steps} and is {now.num_train_steps}"
    )


def build_optimizer(config: RunConfig) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Creates the learning rate schedule and the optimizer."""
    schedule = make_schedule(config.optimizer, config.num_train_steps)
    stacked, freeze = bool(config.model.scan_modules), config.freeze or ()
    return schedule, make_optimizer(config.optimizer, schedule, stacked=stacked, freeze=freeze)
