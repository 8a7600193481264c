"""The ranges of the config's numbers, checked before anything else happens."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rattn_jax.errors import UsageError

Rule = tuple[str, Callable[[Any], bool]]

_POSITIVE: Rule = ("at least 1", lambda value: value >= 1)
_NOT_NEGATIVE: Rule = ("at least 0", lambda value: value >= 0)
_RATE: Rule = ("a finite number of at least 0", lambda value: 0 <= value < math.inf)

_RULES: dict[str, Rule] = {
    "seed": ("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32),
    "batch_size": _POSITIVE,
    "num_train_steps": _NOT_NEGATIVE,
    "log_every_steps": _POSITIVE,
    "eval_every_steps": _POSITIVE,
    "checkpoint_every_steps": _POSITIVE,
    "keep_checkpoints": _POSITIVE,
    "steps_per_call": _NOT_NEGATIVE,
    "augmentation.crop_padding": _NOT_NEGATIVE,
    "optimizer.learning_rate": _RATE,
    "optimizer.boundaries": (
        "steps of at least 1, each larger than the one before",
        lambda value: list(value) == sorted(set(value)) and all(step >= 1 for step in value),
    ),
    "optimizer.decay": _RATE,
    "optimizer.momentum": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "optimizer.weight_decay": _RATE,
}


def check_config(config: ConfigDict) -> None:
    """Raises UsageError if a number is missing or out of its range."""
    for key, (text, holds) in _RULES.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        if value is None or not holds(value):
            shown = tuple(value) if isinstance(value, list | tuple) else value
            raise UsageError(f"config.{key}={shown!r} is out of range: it must be {text}")
