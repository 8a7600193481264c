"""Chooses the writers that `config.loggers` names.

check_loggers(config.loggers)
writers = build_loggers(config.loggers, folder, config.to_dict(), console.say)
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from rattn_jax.errors import UsageError
from rattn_jax.runs.mlflow_run import MlflowRun
from rattn_jax.runs.run_ids import RunIds
from rattn_jax.runs.wandb_run import WandbRun
from rattn_jax.runs.writer import Writer

_LOGGERS: dict[str, Callable[..., Writer]] = {"mlflow": MlflowRun, "wandb": WandbRun}


def check_loggers(names: Sequence[str]) -> None:
    """Raises UsageError if the package of a logger is not installed."""
    for name in names:
        if not is_installed(name):
            raise UsageError(
                f"config.loggers has {name!r}, and the package {name} is not installed: "
                f"pip install -e '.[{name}]', or leave it out"
            )


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def build_loggers(
    names: Sequence[str],
    folder: epath.Path,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[Writer]:
    """The writers, not opened yet.

    Args:
        names: names of loggers.
        folder: the run's folder.
        config: the run's config, nested.
        say: prints a line.
    """
    ids = RunIds(folder)
    return [_LOGGERS[name](folder, config, ids, say) for name in names]
