"""Weights & Biases: https://docs.wandb.ai. What WANDB_MODE, WANDB_PROJECT, ... say holds."""

import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from PIL import Image

from rattn_jax.errors import UsageError
from rattn_jax.runs.files import is_remote
from rattn_jax.runs.run_ids import RunIds
from rattn_jax.runs.writer import scalars

_ORDER = ("train", "validation", "test")  # of the lines of an update, after which its pictures come


class WandbRun:
    """A run of Weights & Biases, which goes on where this one does. See `Writer`.

    Args:
        folder: the run's folder.
        config: the run's config, nested.
        ids: has the run's id.
        say: prints a line.
    """

    name = "wandb"

    def __init__(
        self,
        folder: epath.Path,
        config: Mapping[str, Any],
        ids: RunIds,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._config, self._ids, self._say = folder, config, ids, say
        self._known = ids.get(self.name)
        self._id = self._known or uuid.uuid4().hex[:8]
        self._run: Any = None

    def open(self) -> bool:
        """See `Writer`."""
        import wandb

        settings = wandb.Settings(
            silent=True,  # its lines would break into the console's
            console="off",
            init_timeout=50,
            finish_timeout=8,
            finish_timeout_raises=True,
        )
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rattn_jax"),
                name=None if self._known else self._folder.name,
                id=self._id,
                resume="allow",
                dir=None if is_remote(self._folder) else str(self._folder),
                reinit="create_new",
                settings=settings,
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            raise UsageError(
                f"config.loggers has 'wandb', which refuses ({' '.join(str(error).split())}): put "
                "that right, set WANDB_MODE=offline, or leave it out"
            ) from error
        self._run.config.update(dict(self._config), allow_val_change=True)
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        self._ids.keep(self.name, self._id)
        is_offline = self._run.settings.mode != "online"
        place = self._run.settings.sync_dir if is_offline else self._run.url
        self._say(f"wandb writes to {place}")
        return self._known is None

    def append(self, row: Mapping[str, Any]) -> None:
        """See `Writer`."""
        self._log(row["step"], row["split"], scalars(row))

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """See `Writer`."""
        import wandb

        self._log(step, name, {name: wandb.Image(picture)})

    def close(self, *, ended_well: bool) -> None:
        """See `Writer`."""
        self._run.finish(exit_code=0 if ended_well else 1)

    def _log(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        # By numbers that only rise, wandb leaves out what a resumed run does once more.
        number = step * (len(_ORDER) + 1) + (_ORDER.index(kind) if kind in _ORDER else len(_ORDER))
        self._run.log({"update": step, **values}, step=number)
