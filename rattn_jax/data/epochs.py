"""Turns epochs of a config into updates, once the number of examples is known."""

import dataclasses

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.catalog import KNOWN, open_early
from rattn_jax.data.dataset import Dataset


def in_steps(config: RunConfig, opened: Dataset | None = None) -> RunConfig:
    """The config with `num_epochs`, `warmup_epochs` and `eval_every_epochs` as updates.

    An epoch has as many updates as the training split, without held-out examples, has whole
    batches, and at least one.

    Args:
        config: the run's config.
        opened: its dataset, if it is open already.

    Raises:
        UsageError: the dataset cannot be opened.
    """
    optimizer = config.optimizer
    if (config.num_epochs, optimizer.warmup_epochs, config.eval_every_epochs) == (None,) * 3:
        return config
    opened = opened or open_early(config)
    num_train = len(opened.train) if opened else KNOWN[config.dataset.name].num_train
    an_epoch = max((num_train - config.validation_examples) // config.batch_size, 1)

    def steps(epochs: float | None, otherwise: int, least: int = 1) -> int:
        return otherwise if epochs is None else max(round(epochs * an_epoch), least)

    return dataclasses.replace(
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
