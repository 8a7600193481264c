"""Turns epochs of a config into updates, once the number of examples is known."""

import dataclasses
import re
from collections.abc import Generator
from contextlib import contextmanager

from rattn_jax.config.load import EPOCHS, flatten
from rattn_jax.config.rules import check_config
from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import KNOWN, open_early
from rattn_jax.data.dataset import Dataset
from rattn_jax.errors import UsageError


def in_steps(config: RunConfig, opened: Dataset | None = None) -> RunConfig:
    """The config with `num_epochs`, `warmup_epochs` and `eval_every_epochs` as updates.

    An epoch has as many updates as the training split, without held-out examples, has whole
    batches, and at least one.

    Args:
        config: the run's config.
        opened: its dataset, if it is open already; a known one is taken to be as published if not.

    Raises:
        UsageError: the dataset cannot be opened, or these are too many updates.
    """
    if not counts_epochs(config):
        return config
    optimizer = config.optimizer
    opened = opened or open_early(config)
    num_train = len(opened.train) if opened else KNOWN[config.dataset.name].num_train
    an_epoch = max((num_train - config.validation_examples) // config.batch_size, 1)

    def steps(epochs: float | None, otherwise: int, least: int = 1) -> int:
        return otherwise if epochs is None else max(round(epochs * an_epoch), least)

    resolved = dataclasses.replace(
        config,
        num_train_steps=steps(config.num_epochs, config.num_train_steps),
        eval_every_steps=steps(config.eval_every_epochs, config.eval_every_steps),
        optimizer=dataclasses.replace(
            optimizer,
            warmup_steps=steps(optimizer.warmup_epochs, optimizer.warmup_steps, least=0),
            warmup_epochs=None,
        ),
        num_epochs=None,
        eval_every_epochs=None,
    )
    with named_as_given(config, resolved):
        check_config(resolved)
    return resolved


def counts_epochs(config: RunConfig) -> bool:
    """Whether the config gives a number in epochs."""
    given = (config.num_epochs, config.optimizer.warmup_epochs, config.eval_every_epochs)
    return given != (None,) * 3


@contextmanager
def named_as_given(given: RunConfig, resolved: RunConfig) -> Generator[None]:
    """Has errors of the user's name keys in epochs, where these were given, instead of updates.

    Args:
        given: the config as it was given.
        resolved: the same, from `in_steps`.
    """
    try:
        yield
    except UsageError as error:
        before, now, text = flatten(given.to_dict()), flatten(resolved.to_dict()), str(error)
        for key, steps in EPOCHS.items():
            if before[key] is not None:
                epochs = f"{key}={before[key]:g} ({now[steps]:,} updates)"
                text = re.sub(rf"\b{re.escape(steps)}={now[steps]}\b", epochs, text)
        raise UsageError(text) from error
