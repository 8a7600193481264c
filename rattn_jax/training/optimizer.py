"""Learning rate schedules and optimizers by name; all of them come from optax.

config = OptimizerConfig(name="sgd", schedule="step", learning_rate=0.1, boundaries=(64_000,))
schedule = make_schedule(config, num_train_steps=160_000)
optimizer = make_optimizer(config, schedule)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rattn_jax.config.schema import OptimizerConfig
from rattn_jax.errors import UsageError

SCHEDULES = ("cosine", "linear", "one_cycle", "step")


def make_schedule(config: OptimizerConfig, num_train_steps: int) -> optax.Schedule:
    """Learning rate as a function of the number of updates done.

    Args:
        config: name and numbers of the schedule, with these meanings.
            schedule: "step" is multiplied by `step_decay` at each boundary; "cosine" falls to 0 at
            the end along half a cosine (Loshchilov & Hutter 2017), "linear" along a straight line
            (Li, Yumer & Ramanan 2019); "one_cycle" rises and falls along cosines
            (Smith & Topin 2018), as `optax.cosine_onecycle_schedule` does.
            learning_rate: the highest rate.
            warmup_steps: updates in which the rate rises to the highest: linearly, with its first
            step in the first update (Goyal et al. 2017); along the cosine for "one_cycle", where 0
            stands for 30 % of the run.
            boundaries: for "step": numbers of updates, warm-up included, after which the rate
            falls: update number b (counted from 0) is the first one at the smaller rate.
            step_decay: for "step": factor.
        num_train_steps: updates of the whole run.

    Raises:
        UsageError: unknown name; a warm-up that is longer than the run.
    """
    name, peak, warmup_steps = config.schedule, config.learning_rate, config.warmup_steps
    if name not in SCHEDULES:
        raise UsageError(_unknown("schedule", name, SCHEDULES))
    if num_train_steps and warmup_steps >= num_train_steps:
        raise UsageError(
            f"optimizer.warmup_steps={warmup_steps} must be below num_train_steps="
            f"{num_train_steps}: shorten the warm-up, or train longer"
        )
    total = max(num_train_steps, warmup_steps + 1)  # a run that only evaluates has no updates
    if name == "one_cycle":
        share = (warmup_steps + 0.5) / total if warmup_steps else 0.3  # optax rounds down
        return optax.cosine_onecycle_schedule(total, peak, pct_start=share)
    if name == "step":
        after = optax.piecewise_constant_schedule(
            peak, {int(boundary): config.step_decay for boundary in config.boundaries}
        )
    else:
        if name == "cosine":
            falling = optax.cosine_decay_schedule(peak, total - warmup_steps)
        else:
            falling = optax.linear_schedule(peak, 0.0, total - warmup_steps)

        def after(step: Any) -> Any:
            return falling(step - warmup_steps)

    if not warmup_steps:
        return after

    def schedule(step: Any) -> Any:
        rising = peak * (step + 1) / warmup_steps
        return jnp.where(step < warmup_steps, rising, after(step))

    return schedule


# Functions of (schedule, config, mask of the parameters that decay).
_Maker = Callable[[optax.Schedule, OptimizerConfig, Any], optax.GradientTransformation]


def _decayed(
    optimizer: optax.GradientTransformation, config: OptimizerConfig, mask: Any
) -> optax.GradientTransformation:
    """`optimizer` with `weight_decay * parameter` added to gradients: an L2 term of the loss."""
    return optax.chain(optax.add_decayed_weights(config.weight_decay, mask), optimizer)


OPTIMIZERS: dict[str, _Maker] = {
    "sgd": lambda rate, config, mask: _decayed(
        optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov), config, mask
    ),
    "rmsprop": lambda rate, config, mask: _decayed(
        optax.rmsprop(rate, momentum=config.momentum), config, mask
    ),
    "lars": lambda rate, config, mask: optax.lars(
        rate,
        weight_decay=config.weight_decay,
        weight_decay_mask=True if mask is None else mask,
        trust_ratio_mask=True if mask is None else mask,
        momentum=config.momentum,
    ),
    # These have no momentum option, and decouple weight decay from the gradients.
    "adamw": lambda rate, config, mask: optax.adamw(
        rate, weight_decay=config.weight_decay, mask=mask
    ),
    "lamb": lambda rate, config, mask: optax.lamb(
        rate, weight_decay=config.weight_decay, mask=mask
    ),
    "lion": lambda rate, config, mask: optax.lion(
        rate, weight_decay=config.weight_decay, mask=mask
    ),
    "nadamw": lambda rate, config, mask: optax.nadamw(
        rate, weight_decay=config.weight_decay, mask=mask
    ),
}

_TRAINED, _FROZEN = "trained", "frozen"
_LAYERWISE = frozenset({"lamb", "lars"})


def is_by_value(name: str) -> bool:
    """Whether an optimizer treats each number on its own, whatever array it is in."""
    return name not in _LAYERWISE


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    *,
    stacked: bool = False,
    freeze: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Creates an optimizer.

    Args:
        config: name and numbers of the optimizer, with these meanings.
            name: a key of `OPTIMIZERS`. "sgd" is the paper's, with the decay in the gradient before
            the momentum, as in its framework (Caffe). Unlike Caffe, which keeps the learning rate
            inside the momentum, it multiplies by the rate last, as PyTorch does: the two differ in
            the updates after the rate has changed.
            momentum: of "sgd", "lars" and "rmsprop".
            nesterov: of "sgd": Nesterov's momentum, or the classical one.
            weight_decay: of the parameters.
            decay_norm_and_bias: decay all parameters, as in the paper, or kernels only.
            clip_norm: gradients with a larger global norm are scaled down to it; 0: no clipping.
        schedule: learning rate.
        stacked: whether the parameters of equal modules are stacked, as `scan_modules` does.
        freeze: parts that are not trained: top-level names of the parameters, such as "stage1", or
            their prefix before an underscore: "stage1" also matches "stage1_unit1".

    Raises:
        UsageError: unknown name; an optimizer that uses norms of layers, with stacked layers.
            The optimizer's `init` raises it if `freeze` has unknown names, or all of them.
    """
    name = config.name
    if name not in OPTIMIZERS:
        raise UsageError(_unknown("name", name, sorted(OPTIMIZERS)))
    if stacked and name in _LAYERWISE:
        raise UsageError(
            f"optimizer.name={name!r} takes the norm of each layer, and layers of several modules "
            "are stacked: use model.scan_modules=False, or another optimizer"
        )
    mask = None if config.decay_norm_and_bias else _kernels
    optimizer = OPTIMIZERS[name](schedule, config, mask)
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if not freeze:
        return optimizer
    # The compiler removes the computation of gradients that are not used.
    return optax.partition(
        {_TRAINED: optimizer, _FROZEN: optax.set_to_zero()}, partial(_labels, freeze=freeze)
    )


def _labels(params: Any, *, freeze: Sequence[str]) -> dict[str, str]:
    """Marks the parameters that are trained."""

    def is_in(name: str, part: Any) -> bool:
        return name == part or name.startswith(f"{part}_")

    frozen = {name for name in params if any(is_in(name, part) for part in freeze)}
    unknown = [part for part in freeze if not any(is_in(name, part) for name in params)]
    if unknown or len(frozen) == len(params):
        what = (
            f"{unknown[0]!r} is no part of the network" if unknown else "nothing is left to train"
        )
        raise UsageError(f"config.freeze={tuple(freeze)}: {what}; its parts: {', '.join(params)}")
    return {name: _FROZEN if name in frozen else _TRAINED for name in params}


def _kernels(params: Any) -> Any:
    """True for kernels of convolutions and matrices, False for biases and batch norm."""
    # The variables of stacked modules (`models/scan_params.py`) have an axis more: names, not
    # ranks.
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _unknown(key: str, value: str, known: Sequence[str]) -> str:
    return f"optimizer.{key}={value!r} is unknown: choose one of {', '.join(known)}"
