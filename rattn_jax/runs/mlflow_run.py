"""MLflow: https://mlflow.org. What MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ... say holds."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from PIL import Image

from rattn_jax.config.load import flatten
from rattn_jax.runs.run_ids import RunIds
from rattn_jax.runs.writer import scalars

_PARAMS_AT_ONCE, _PARAM_LENGTH = 100, 6_000  # which MLflow takes


class MlflowRun:
    """A run of MLflow, which goes on where this one does. See `Writer`.

    Args:
        folder: the run's folder.
        config: the run's config, nested.
        ids: has the run's id.
        say: prints a line.
    """

    name = "mlflow"

    def __init__(
        self,
        folder: epath.Path,
        config: Mapping[str, Any],
        ids: RunIds,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._config, self._ids, self._say = folder, config, ids, say
        self._id = ids.get(self.name)
        self._is_new = self._id is None
        self._client: Any = None

    def open(self) -> bool:
        """See `Writer`."""
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if self._id is None:
            self._id = self._create()
            self._ids.keep(self.name, self._id)
        self._client.update_run(self._id, status="RUNNING")
        if self._is_new:
            self._log_config()
        self._say(f"mlflow writes to run {self._id} at {self._client.tracking_uri}")
        return self._is_new

    def append(self, row: Mapping[str, Any]) -> None:
        """See `Writer`."""
        from mlflow.entities import Metric

        milliseconds = round(1000 * row["time"])
        metrics = [Metric(n, v, milliseconds, row["step"]) for n, v in scalars(row).items()]
        self._client.log_batch(self._id, metrics=metrics)

    def show(self, step: int, name: str, picture: Image.Image) -> None:
        """See `Writer`."""
        now = round(1000 * time.time())
        self._client.log_image(self._id, picture, key=name, step=step, timestamp=now)

    def close(self, *, ended_well: bool) -> None:
        """See `Writer`."""
        self._client.set_terminated(self._id, "FINISHED" if ended_well else "KILLED")

    def _create(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rattn_jax")
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return str(self._client.create_run(place, run_name=self._folder.name).info.run_id)

    def _log_config(self) -> None:
        from mlflow.entities import Param

        values = flatten(self._config).items()
        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in values]
        for i in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[i : i + _PARAMS_AT_ONCE])
