"""Which of a run's evaluations was the best, by its lines of metrics and its config's `keep_best`.

best_row(rows, config.keep_best)["step"]
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rattn_jax.config.schema import KeepBestConfig

LAST, BEST = "last", "best"  # of a run's checkpoints

Row = Mapping[str, Any]  # a line of metrics.jsonl


def best_row(rows: Sequence[Row], keep_best: KeepBestConfig) -> Row | None:
    """The line of the best evaluation, of equal ones the first; None if there is none.

    Args:
        rows: lines of metrics.jsonl, oldest first.
        keep_best: section of the config; without a metric there is no best one.
    """
    metric = keep_best.metric
    if metric is None:
        return None
    finite = [row for row in _evaluations(rows, keep_best) if row[metric] is not None]
    if not finite:
        return None
    values = [row[metric] for row in finite]
    return finite[values.index(min(values) if keep_best.mode == "min" else max(values))]


def best_step(rows: Sequence[Row], keep_best: KeepBestConfig, steps: Collection[int]) -> int | None:
    """The step of the best evaluation after one of `steps`; None if there is none.

    Args:
        rows: lines of metrics.jsonl, oldest first.
        keep_best: section of the config.
        steps: those of the checkpoints.
    """
    best = best_row([row for row in rows if row["step"] in steps], keep_best)
    return None if best is None else int(best["step"])


def is_enough(rows: Sequence[Row], keep_best: KeepBestConfig) -> bool:
    """Whether `keep_best.patience` evaluations in a row have not been better than the best."""
    best = best_row(rows, keep_best)
    if best is None or not keep_best.patience:
        return False
    later = [row for row in _evaluations(rows, keep_best) if row["step"] > best["step"]]
    return len(later) >= keep_best.patience


def early_end(rows: Sequence[Row], keep_best: KeepBestConfig, num_train_steps: int) -> str | None:
    """Says why a run has ended before its last update, after "the run has"; None if it has not.

    Args:
        rows: lines of metrics.jsonl, oldest first.
        keep_best: section of the config.
        num_train_steps: updates of the whole run.
    """
    best, metric = best_row(rows, keep_best), keep_best.metric
    if best is None or metric is None:
        return None
    if not is_enough(rows, keep_best) or rows[-1]["step"] >= num_train_steps:
        return None
    return (
        f"ended early (of {num_train_steps:,} updates) by keep_best.patience={keep_best.patience}: "
        f"no {metric} of {keep_best.chosen_split} examples was better than the "
        f"{best[metric]:.4f} after {best['step']:,}"
    )


def _evaluations(rows: Sequence[Row], keep_best: KeepBestConfig) -> list[Row]:
    return [row for row in rows if row["split"] == keep_best.chosen_split]
