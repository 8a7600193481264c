"""Train and eval steps as pure functions of one replica.

They run under a mapped axis (`parallel/`) over which gradients, running averages and metrics
are combined; batches are the replica's shard of the global batch.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rattn_jax.augment import augment_images, example_rngs, one_hot_targets, regularize
from rattn_jax.config.schema import SIGMOID, SOFTMAX, AugmentationConfig, RegularizationConfig
from rattn_jax.data.batches import Batch, Data, ResidentData, normalize, take
from rattn_jax.training import eval_sums, multi_label
from rattn_jax.training.eval_sums import EvalSums
from rattn_jax.training.losses import set_targets, training_losses
from rattn_jax.training.metrics import Metrics, empty, measure, merge
from rattn_jax.training.multi_label import ScoredSums, nearest_labels
from rattn_jax.training.packing import Packing
from rattn_jax.training.state import TrainState, skip_nonfinite_update, update_ema

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a training batch on the device.

    Attributes:
        augmentation: augmentation of the uint8 images. Streamed images have been cropped on the
            host, from the whole image, so `resized_crop_area` is not set for them.
        regularization: regularization of normalised images and targets.
        num_classes: number of classes.
        label_smoothing: fraction of the target that is spread over all classes.
        num_train_steps: updates of the whole run, for `mixing_off_last_steps`.
        label_sets: see `losses.label_sets`.
    """

    augmentation: AugmentationConfig
    regularization: RegularizationConfig
    num_classes: int
    label_smoothing: float = 0.0
    num_train_steps: int = 0
    label_sets: np.ndarray | None = dataclasses.field(default=None, compare=False)

    @property
    def loss(self) -> str:
        """The loss that fits the targets."""
        return SOFTMAX if self.label_sets is None else SIGMOID


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """Everything that defines an update.

    Attributes:
        model: network.
        optimizer: optimizer.
        preprocessing: preprocessing of the batch.
        accumulate_steps: number of microbatches into which a replica's shard of the batch is split
            to save memory; batch norm normalises each of them by itself.
        ema_decay: see `update_ema`.
        skip_nonfinite: whether an update that gives NaN or infinity is skipped, or stops training;
            see `skip_nonfinite_update`.
        freeze_batch_norm: whether batch norm uses its running averages, unchanged.
        class_weights: factors of the classes' terms of the loss; None: all are 1.
        by_value: whether the optimizer treats every number alike, and does not look at the norm or
            the name of its array.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    preprocessing: Preprocessing
    accumulate_steps: int = 1
    ema_decay: float = 0.0
    skip_nonfinite: bool = False
    freeze_batch_norm: bool = False
    by_value: bool = True
    class_weights: tuple[float, ...] | None = None


def prepare(
    batch: Batch,
    data: Data,
    step: Array,
    positions: Array,
    preprocessing: Preprocessing,
) -> tuple[Array, Array]:
    """Inputs and targets of the network in training.

    Args:
        batch: images and labels.
        data: the training split, whose normalization and seed it takes.
        step: number of updates done, int32 scalar.
        positions: positions of the examples in the global batch, int32 [B].
        preprocessing: what to do with them.

    Returns:
        Images float32 [B, H, W, C], targets float32 [B, num_classes].
    """
    options = preprocessing
    rngs = example_rngs(data.seed, step, positions)
    augmentation = dataclasses.asdict(options.augmentation)
    images = augment_images(rngs, jnp.asarray(batch.images), **augmentation)
    images = normalize(images, data.normalization)
    labels = jnp.asarray(batch.labels)
    if options.label_sets is None:
        targets = one_hot_targets(labels, options.num_classes, options.label_smoothing)
    else:
        targets = set_targets(labels, options.label_sets, options.label_smoothing)
    return regularize(
        rngs,
        images,
        targets,
        cutout=options.regularization.cutout,
        erasing=options.regularization.erasing,
        mixup=options.regularization.mixup,
        cutmix=options.regularization.cutmix,
        mixing=_is_mixing(step, options),
    )


def _is_mixing(step: Array, options: Preprocessing) -> Array | bool:
    """Whether the update after `step` updates mixes examples, a boolean scalar."""
    off = options.regularization.mixing_off_last_steps
    return step < options.num_train_steps - off if off else True


def train_step(
    state: TrainState,
    data: Data,
    row: Any,
    rule: UpdateRule,
    *,
    axis_name: str,
    use_scan: bool,
    packing: Packing | None = None,
) -> TrainState:
    """Runs one update.

    Args:
        state: state before it, the same on every replica; packed where there is a packing.
        data: the training split.
        row: the replica's shard of the batch: indices of examples [B], or a `Batch`.
        rule: definition of the update.
        axis_name: mapped axis of the replicas.
        use_scan: see `scan_or_unroll`.
        packing: of the state.
    """
    batch = take(data, row)
    share = batch.labels.shape[0]
    positions = jax.lax.axis_index(axis_name) * share + jnp.arange(share)
    images, targets = prepare(
        batch, data, state.step, positions, for_data(rule.preprocessing, data)
    )
    network = state if packing is None else packing.unpack_state(state)
    grads, batch_stats, sums = _gradients(
        network, (images, targets, jnp.asarray(batch.labels)), rule, use_scan
    )
    if packing is not None:
        grads, batch_stats = packing.params.pack(grads), packing.batch_stats.pack(batch_stats)
    grads, batch_stats = jax.lax.pmean((grads, batch_stats), axis_name)
    updates, opt_state = rule.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    updated = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=update_ema(state.ema, params, batch_stats, state.step, rule.ema_decay),
        metrics=merge(state.metrics, jax.lax.psum(sums, axis_name)),
    )
    return skip_nonfinite_update(updated, state, go_on=rule.skip_nonfinite, branch=not use_scan)


def for_data(preprocessing: Preprocessing, data: Data) -> Preprocessing:
    """The preprocessing that batches of this data still need on the device."""
    if isinstance(data, ResidentData):
        return preprocessing
    augmentation = dataclasses.replace(preprocessing.augmentation, resized_crop_area=None)
    return dataclasses.replace(preprocessing, augmentation=augmentation)


def _gradients(
    state: TrainState, examples: tuple[Array, Array, Array], rule: UpdateRule, use_scan: bool
) -> tuple[Any, Any, Metrics]:
    """Gradients of the mean loss, new batch statistics, and metrics."""
    label_sets = rule.preprocessing.label_sets

    def loss_fn(params: Any, batch_stats: Any, part: Any) -> tuple[Array, tuple[Any, Metrics]]:
        images, targets, labels = part
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = rule.model.apply(
            variables, images, train=not rule.freeze_batch_norm, mutable=["batch_stats"]
        )
        losses = training_losses(logits, targets, rule.class_weights, rule.preprocessing.loss)
        if label_sets is not None:
            labels = nearest_labels(logits, jnp.asarray(label_sets)[labels])
        sums = measure(logits, labels, losses=losses)
        return jnp.mean(losses), (updated["batch_stats"], sums)

    def add_part(carry: Any, part: Any) -> Any:
        grads, batch_stats, sums = carry
        more, (batch_stats, more_sums) = jax.grad(loss_fn, has_aux=True)(
            state.params, batch_stats, part
        )
        grads = more if grads is None else jax.tree.map(jnp.add, grads, more)
        return grads, batch_stats, merge(sums, more_sums)

    count = rule.accumulate_steps
    if count == 1:
        return add_part((None, state.batch_stats, empty()), examples)
    microbatches = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    grads, batch_stats, sums = scan_or_unroll(
        add_part, (zeros, state.batch_stats, empty()), microbatches, use_scan
    )
    return jax.tree.map(lambda x: x / count, grads), batch_stats, sums


def train_steps(
    state: TrainState, data: Data, rows: Any, *, rule: UpdateRule, axis_name: str, use_scan: bool
) -> TrainState:
    """Runs a `train_step` for each row of `rows`.

    Args:
        state: state before the updates.
        data: the training split.
        rows: rows of `train_step`, stacked: [steps, B, ...].
        rule: see `train_step`.
        axis_name: see `train_step`.
        use_scan: see `scan_or_unroll`.
    """
    packing = Packing(state.params, state.batch_stats) if use_scan and rule.by_value else None

    def step(state: TrainState, row: Any) -> TrainState:
        return train_step(
            state, data, row, rule, axis_name=axis_name, use_scan=use_scan, packing=packing
        )

    if packing is None:
        return scan_or_unroll(step, state, rows, use_scan)
    return packing.unpack_state(scan_or_unroll(step, packing.pack_state(state), rows, use_scan))


def eval_step(
    sums: EvalSums | ScoredSums,
    state: TrainState,
    data: Data,
    row: Any,
    mask: Array,
    *,
    model: nn.Module,
    axis_name: str,
    label_sets: np.ndarray | None = None,
) -> EvalSums | ScoredSums:
    """Adds a batch to the sums, over all replicas. Batch norm uses its running averages.

    If the state has an EMA, the averages are evaluated.

    Args:
        sums: sums over the previous batches.
        state: state, the same on every replica.
        data: the split.
        row: see `train_step`.
        mask: bool [B], False for examples that do not count.
        model: network.
        axis_name: mapped axis of the replicas.
        label_sets: see `losses.label_sets`.
    """
    batch = take(data, row)
    images = normalize(jnp.asarray(batch.images), data.normalization)
    logits: Any = model.apply(state.evaluated, images, train=False)
    labels = jnp.asarray(batch.labels)
    if isinstance(sums, ScoredSums):
        targets = jnp.asarray(label_sets)[labels]
        return multi_label.add(sums, logits, targets, mask, axis_name)
    return eval_sums.add(sums, logits, labels, mask, axis_name)


def eval_steps(
    state_and_sums: tuple[TrainState, EvalSums],
    data: Data,
    rows: Any,
    mask: Array,
    *,
    model: nn.Module,
    axis_name: str,
    use_scan: bool,
    label_sets: np.ndarray | None = None,
) -> EvalSums | ScoredSums:
    """Adds the batches in `rows` and `mask` [steps, B, ...] to the sums.

    Each call depends on the sums of the previous one, which keeps calls in the same order on all
    processes. On CPU independent calls run concurrently, and processes could deadlock in each
    other's collectives.

    Args:
        state_and_sums: the state, and the sums so far.
        data: the split.
        rows: see `train_steps`.
        mask: bool [steps, B], False for examples that do not count.
        model: see `eval_step`.
        axis_name: see `eval_step`.
        use_scan: see `scan_or_unroll`.
        label_sets: see `losses.label_sets`.
    """
    state: TrainState
    sums: EvalSums | ScoredSums
    state, sums = state_and_sums
    if label_sets is not None:
        num_slots = mask.size * jax.lax.axis_size(axis_name)
        sums = multi_label.begin(sums, num_slots, label_sets.shape[1])
    add = partial(eval_step, model=model, axis_name=axis_name, label_sets=label_sets)

    def step(sums: EvalSums | ScoredSums, row: tuple[Any, Array]) -> EvalSums | ScoredSums:
        return add(sums, state, data, *row)

    return scan_or_unroll(step, sums, (rows, mask), use_scan)


def scan_or_unroll(
    function: Callable[[Any, Any], Any], carry: Any, rows: Any, use_scan: bool
) -> Any:
    """Applies `function(carry, row)` to each row in a compiled loop, or unrolled.

    A loop compiles its body once. On CPU convolutions in a loop are slow (their gradients 20
    times), also with `jax.lax.scan(unroll=...)` and for a single row.
    """
    if use_scan:
        return jax.lax.scan(lambda carry, row: (function(carry, row), None), carry, rows)[0]
    for i in range(jax.tree.leaves(rows)[0].shape[0]):
        carry = function(carry, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
    return carry
