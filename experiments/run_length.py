"""Changes the number of updates of a run, and with it what is counted in updates."""

from typing import Any

from ml_collections import ConfigDict

from rattn_jax.config.schema import RunConfig


def with_length(config: ConfigDict | RunConfig, num_train_steps: int) -> dict[str, Any]:
    """The keys that train a config for a number of updates, with their values.

    Warm-up, boundaries and the updates without mixing keep their shares of the run.
    """
    share = num_train_steps / max(config.num_train_steps, 1)
    boundaries = (max(round(share * step), 1) for step in config.optimizer.boundaries)
    mixing_off = config.regularization.mixing_off_last_steps
    return {
        "num_train_steps": num_train_steps,
        "optimizer.warmup_steps": round(share * config.optimizer.warmup_steps),
        "optimizer.boundaries": tuple(dict.fromkeys(boundaries)),
        "regularization.mixing_off_last_steps": round(share * mixing_off),
    }
