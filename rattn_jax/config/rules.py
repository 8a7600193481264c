"""Ranges of the values of a config."""

import functools
import math
from collections.abc import Callable
from typing import Any

from rattn_jax.config.schema import (
    BALANCED,
    BY_NAME,
    BY_PATH,
    BY_POSITION,
    OF_SIGMOID,
    SIGMOID,
    SOFTMAX,
    KeepBestConfig,
    RunConfig,
)
from rattn_jax.errors import UsageError

Rule = tuple[str, Callable[[Any], bool]]

_LARGEST = 10**9  # which fits a 32-bit integer


def _whole(low: int, high: int) -> Rule:
    return f"from {low:,} to {high:,}", lambda value: low <= value <= high


_POSITIVE, _NOT_NEGATIVE = _whole(1, _LARGEST), _whole(0, _LARGEST)
# Larger numbers of images, pixels, threads or units are typing errors.
_IMAGES, _PIXELS, _THREADS = _whole(1, 2**20), _whole(1, 2**14), _whole(0, 2**10)
_EPOCHS: Rule = ("above 0", lambda value: 0 < value < _LARGEST)
_UNITS: Rule = _whole(0, 1_000)
_SHARE: Rule = ("from 0 to 1", lambda value: 0 <= value <= 1)
_BELOW_ONE: Rule = ("at least 0 and below 1", lambda value: 0 <= value < 1)
_RATE: Rule = ("a finite number of at least 0", lambda value: 0 <= value < math.inf)


def _are_weights(values: tuple[Any, ...]) -> bool:
    are_numbers = all(isinstance(value, int | float) for value in values)
    return are_numbers and all(0 <= value < math.inf for value in values) and any(values)


def _tuple_of(kind: type, text: str) -> Rule:
    return text, lambda values: all(isinstance(value, kind) for value in values)


_WHOLE_NUMBERS = _tuple_of(int, "a tuple of whole numbers")
_NAMES = _tuple_of(str, "a tuple of names, such as ('cat','dog')")

# Names of what an evaluation measures; the last three with the sigmoid loss.
_METRICS = ("error_top1", "error_top5", "loss", *OF_SIGMOID)

_RULES: dict[str, Rule] = {
    "seed": ("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32),
    "batch_size": _IMAGES,
    "num_train_steps": _NOT_NEGATIVE,
    "num_epochs": _EPOCHS,
    "log_every_steps": _POSITIVE,
    "eval_every_steps": _POSITIVE,
    "eval_every_epochs": _EPOCHS,
    "checkpoint_every_steps": _POSITIVE,
    "keep_checkpoints": _POSITIVE,
    "keep_best.metric": (
        f"one of {', '.join(_METRICS)}",
        lambda value: value in _METRICS,
    ),
    "keep_best.mode": ("'min' or 'max'", lambda value: value in ("min", "max")),
    "keep_best.split": (
        "'validation' or 'test'",
        lambda value: value in ("validation", "test"),
    ),
    "keep_best.patience": _NOT_NEGATIVE,
    "steps_per_call": _NOT_NEGATIVE,
    "process_timeout_seconds": _POSITIVE,
    "preemption_grace_seconds": _POSITIVE,
    "on_save_error": ("'stop' or 'continue'", lambda value: value in ("stop", "continue")),
    "on_nonfinite": ("'stop' or 'skip'", lambda value: value in ("stop", "skip")),
    "profile_steps": (
        "two numbers of updates, at least 0 and in ascending order",
        lambda value: len(value) == 2 and 0 <= value[0] < value[1],
    ),
    "loggers": (
        "'wandb', 'mlflow' or ('wandb','mlflow'); TensorBoard's files are written anyway",
        lambda value: set(value) <= {"wandb", "mlflow"} and len(set(value)) == len(value),
    ),
    "parallel": ("'shard_map' or 'pmap'", lambda value: value in ("shard_map", "pmap")),
    "dataset.test_fraction": ("above 0 and below 1", lambda value: 0 < value < 1),
    "dataset.hold_out_by": (
        "'path', 'name' or 'position'",
        lambda value: value in (BY_PATH, BY_NAME, BY_POSITION),
    ),
    "dataset.label_separator": ("at least one character", bool),
    "dataset.classes": _NAMES,
    "dataset.sampling": ("'uniform' or 'balanced'", lambda value: value in ("uniform", BALANCED)),
    "dataset.image_size": _PIXELS,
    "dataset.eval_image_size": _PIXELS,
    "dataset.eval_crop_fraction": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "dataset.max_resident_bytes": _whole(0, 2**60),
    "dataset.num_threads": _THREADS,
    "dataset.max_bad_examples": _NOT_NEGATIVE,
    "dataset.label_noise.clean_ratio": _SHARE,
    "validation_examples": _NOT_NEGATIVE,
    "validation_seed": ("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32),
    "model.p": _UNITS,
    "model.t": _UNITS,
    "model.r": _UNITS,
    "model.mask_decoder_units": _UNITS,
    "model.modules_per_stage": _WHOLE_NUMBERS,
    "model.widths": _WHOLE_NUMBERS,
    "model.mask_poolings": _WHOLE_NUMBERS,
    "normalization": (
        "'mean_image', 'imagenet' or 'zero_one'",
        lambda value: value in ("mean_image", "imagenet", "zero_one"),
    ),
    "augmentation.resized_crop_area": (
        "two shares of the area, above 0, at most 1, and in ascending order",
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1,
    ),
    "augmentation.crop_padding": _whole(0, 2**14),
    "augmentation.lighting": _RATE,
    "regularization.cutout": _whole(0, 2**14),
    "regularization.erasing": _SHARE,
    "regularization.mixup": _RATE,
    "regularization.cutmix": _RATE,
    "regularization.mixing_off_last_steps": _NOT_NEGATIVE,
    "label_smoothing": _BELOW_ONE,
    "loss": ("'softmax' or 'sigmoid'", lambda value: value in (SOFTMAX, SIGMOID)),
    "class_weights": (
        "'balanced', or a tuple of numbers of at least 0, not all of them 0",
        lambda value: value == BALANCED or (isinstance(value, tuple) and _are_weights(value)),
    ),
    "accumulate_steps": _POSITIVE,
    "ema_decay": _BELOW_ONE,
    "optimizer.warmup_steps": _NOT_NEGATIVE,
    "optimizer.warmup_epochs": _RATE,
    "optimizer.clip_norm": _RATE,
    "optimizer.learning_rate": _RATE,
    "optimizer.boundaries": (
        "steps of at least 1, each larger than the one before",
        lambda value: list(value) == sorted(set(value)) and all(step >= 1 for step in value),
    ),
    "optimizer.step_decay": _RATE,
    "optimizer.momentum": _BELOW_ONE,
    "optimizer.weight_decay": _RATE,
}


# Keys that may be None.
_OPTIONAL = frozenset(
    {
        "dataset.classes",
        "dataset.image_size",
        "dataset.label_separator",
        "dataset.eval_image_size",
        "augmentation.resized_crop_area",
        "class_weights",
        "eval_every_epochs",
        "keep_best.metric",
        "keep_best.split",
        "model.mask_decoder_units",
        "model.mask_poolings",
        "model.modules_per_stage",
        "model.p",
        "model.r",
        "model.t",
        "model.widths",
        "num_epochs",
        "optimizer.warmup_epochs",
        "profile_steps",
        "validation_seed",
    }
)


def check_config(config: RunConfig) -> None:
    """Raises UsageError if a value is missing or out of its range."""
    if not config.dataset.name:
        raise UsageError(
            "config.dataset.name is not set: name a folder of images with --data=DIR, or a dataset "
            "with --config.dataset.name=NAME"
        )
    if not config.model.name and not config.init_from:
        raise UsageError(
            "config.model.name is not set: name a network (`rattn describe` lists them), or one to "
            "start from, whose network is taken, with --config.init_from=FOLDER"
        )
    for key in ("freeze", "freeze_batch_norm"):
        value: Any = getattr(config, key)
        if value and not config.init_from:
            raise UsageError(
                f"config.{key}={value} without config.init_from would keep what is random: "
                "name a run to start from"
            )
    for key, (text, holds) in _RULES.items():
        value = functools.reduce(getattr, key.split("."), config)
        if value is None and key in _OPTIONAL:
            continue
        if key == "normalization" and not value and not config.model.name:
            continue  # that of init_from
        if value is None or not _obeys(value, holds):
            raise UsageError(f"config.{key}={value!r} is out of range: it must be {text}")
    _check_keep_best(config)
    _check_sigmoid(config)
    _check_mixing(config)
    if config.num_train_steps:  # an evaluation keeps nothing
        _check_direction(config.keep_best)


def _obeys(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether a rule holds for a value; not for one of another type, as of text among numbers."""
    try:
        return holds(value)
    except TypeError:
        return False


def _check_mixing(config: RunConfig) -> None:
    """Refuses mixup and CutMix that are off in every update.

    Raises:
        UsageError: they are.
    """
    options, steps = config.regularization, config.num_train_steps
    if not (options.mixup or options.cutmix) or config.num_epochs is not None:
        return  # epochs are not known in updates yet
    if steps and options.mixing_off_last_steps >= steps:
        raise UsageError(
            "config.regularization.mixing_off_last_steps="
            f"{options.mixing_off_last_steps} of num_train_steps={steps} leaves no update with "
            "mixup or CutMix: lower it, or set regularization.mixup and .cutmix to 0"
        )


def _check_keep_best(config: RunConfig) -> None:
    """Refuses a choice by a split that is not evaluated in training, or by the test split unasked.

    Raises:
        UsageError: one of these, or patience without a metric.
    """
    keep_best = config.keep_best
    if keep_best.metric is None:
        if keep_best.patience:
            raise UsageError(
                f"config.keep_best.patience={keep_best.patience} waits for a better value of "
                "nothing: set config.keep_best.metric"
            )
        return
    if keep_best.split == "test" and config.validation_examples:
        raise UsageError(
            "config.keep_best.split='test' with held-out examples: the test split is evaluated "
            "once, at the end; leave it out, and the held-out ones choose"
        )
    if keep_best.split != "test" and not config.validation_examples:
        raise UsageError(
            f"config.keep_best.metric={keep_best.metric!r} needs examples to choose by: hold some "
            "out with config.validation_examples, or let the test split choose, whose error is "
            "too low then, with config.keep_best.split=test"
        )


def _check_direction(keep_best: KeepBestConfig) -> None:
    """Refuses to keep the worst.

    Raises:
        UsageError: the direction is the wrong one.
    """
    right = "max" if keep_best.metric in OF_SIGMOID else "min"
    if keep_best.metric and keep_best.mode != right:
        raise UsageError(
            f"config.keep_best.mode={keep_best.mode!r} would keep the worst "
            f"{keep_best.metric}: set config.keep_best.mode={right}"
        )


def _check_sigmoid(config: RunConfig) -> None:
    """Refuses what supposes one class an image with the loss of several, and the other way round.

    Raises:
        UsageError: one of these.
    """
    if config.loss != SIGMOID:
        if config.keep_best.metric in OF_SIGMOID:
            raise UsageError(
                f"config.keep_best.metric={config.keep_best.metric!r} is measured with "
                "config.loss='sigmoid' alone: choose another one"
            )
        return
    noise = config.dataset.label_noise
    single = {
        "class_weights": config.class_weights == BALANCED,
        "dataset.sampling": config.dataset.sampling == BALANCED,
        "dataset.label_noise": noise.clean_ratio < 1 or noise.matrix is not None,
    }
    if wrong := [key for key, is_set in single.items() if is_set]:
        raise UsageError(
            f"config.loss='sigmoid' with {wrong[0]}, which supposes one class an image: leave it "
            "out"
        )
