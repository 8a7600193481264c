"""Draws report.html, and writes mistakes.csv, after each evaluation."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from rattn_jax.config.schema import RunConfig
from rattn_jax.data.class_names import readable_names
from rattn_jax.parallel.mesh import is_main_process
from rattn_jax.report.mask_health import health_row
from rattn_jax.report.mistakes import MISTAKES, mistakes_table
from rattn_jax.report.page import PAGE, Masks, run_page, update_shown
from rattn_jax.runs.checkpoint_files import all_steps
from rattn_jax.runs.files import replace_text
from rattn_jax.runs.metrics_log import MetricsLog
from rattn_jax.runs.workdir import RECORD
from rattn_jax.training.page_data import PageData

Rows = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl


class ReportWriter:
    """The page of a run, which the main process draws.

    Args:
        folder: the run's folder.
        last_step: step from which the run resumes; see `MetricsLog`.
        config: the run's config.

    Attributes:
        draws: whether this process draws the page.
    """

    def __init__(self, folder: epath.Path, last_step: int, config: RunConfig) -> None:
        self._folder, self._last_step, self._config = folder, last_step, config
        self._log: MetricsLog | None = None
        self.draws = config.report and is_main_process()

    def is_missing(self, step: int) -> bool:
        """Whether no page of this step or a later one is there; False in processes that draw none.

        A run may have been killed between an evaluation and its page.
        """
        path = self._folder / PAGE
        return self.draws and not (path.exists() and update_shown(path.read_text()) >= step)

    def draw(self, page: PageData, rows: Rows) -> None:
        """Draws the page.

        Args:
            page: what it shows.
            rows: the lines of metrics.jsonl.
        """
        record = json.loads((self._folder / RECORD).read_text())
        # Keys that a run may change are as they are now. A length of 0 only evaluates.
        total = self._config.num_train_steps or record["config"]["num_train_steps"]
        record["config"] = self._config.to_dict() | {"num_train_steps": total}
        names = readable_names(record["dataset"]["class_names"])
        replace_text(self._folder / MISTAKES, mistakes_table(page.evaluated.mistaken, names))
        text = run_page(
            str(self._folder),
            record,
            rows,
            page.counts,
            page.evaluated,
            self._masks(page),
            page.num_parameters,
            {
                *all_steps(self._folder / "checkpoints"),
                page.step,
            },  # which is saved if it is the best
        )
        replace_text(self._folder / PAGE, text)

    def _masks(self, page: PageData) -> Masks | None:
        """What the masks do, after a line of it was written to mask_health.jsonl."""
        if page.seen is None:
            return None
        row = health_row(page.step, page.probed_split, page.num_probed, page.seen)
        if self._log is None:
            self._log = MetricsLog(self._folder / "mask_health.jsonl", self._last_step)
        if not any(r["step"] == row["step"] for r in self._log.history):
            self._log.append(row)
        return Masks(page.probed_split, page.images, page.labels, page.seen, self._log.history)
