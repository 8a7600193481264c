"""Results of the runs of a table: means and deviations over seeds, and comparisons of rows."""

import itertools
import json
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.reproduce.responses import RESPONSES
from experiments.reproduce.runs import PlannedRun
from experiments.reproduce.tables import MEASURES, Row


def mean(values: Sequence[float]) -> float | None:
    """Mean over seeds; None without any."""
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds, of the sample; None for less than two."""
    return statistics.stdev(values) if len(values) > 1 else None


class Result(NamedTuple):
    """The result of a row.

    Attributes:
        row: the row.
        values: the number of each seed whose run has ended, by seed.
        updates: updates done by the seed with the fewest.
        num_train_steps: updates of a whole run.
    """

    row: Row
    values: dict[int, float]
    updates: int
    num_train_steps: int

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None before the first has ended."""
        return mean([*self.values.values()])

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, of the sample; None for less than two."""
        return deviation([*self.values.values()])

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.mean is None or self.row.paper is None:
            return None
        return self.mean - self.row.paper


class Difference(NamedTuple):
    """Errors of a row minus those of another one, over the seeds that both have.

    Attributes:
        group: the rows' group.
        first, second: the rows' labels.
        seeds: number of pairs.
        mean: mean difference, in percentage points.
        low, high: its 95 % interval, by Student's t; None if all differences are equal.
        p: of a two-sided paired t-test; None if all differences are equal.
    """

    group: str
    first: str
    second: str
    seeds: int
    mean: float
    low: float | None
    high: float | None
    p: float | None


def read_result(row: Row, runs: Sequence[PlannedRun]) -> Result:
    """Reads the result of a row from its runs."""
    own = [run for run in runs if run.variant == row.variant]
    values = {run.seed: _value(run, row.measure) for run in own}
    return Result(
        row,
        {seed: value for seed, value in values.items() if value is not None},
        min(run.steps_done() for run in own),
        own[0].config.num_train_steps,
    )


def compare(results: Sequence[Result]) -> list[Difference]:
    """Compares each pair of rows of a group by their errors, if they have two seeds in common."""
    found = []
    for first, second in itertools.combinations(results, 2):
        seeds = sorted(first.values.keys() & second.values.keys())
        same = first.row.group == second.row.group
        if same and len(seeds) > 1 and first.row.measure.startswith("error"):
            found.append(_difference(first, second, seeds))
    return found


def _difference(first: Result, second: Result, seeds: Sequence[int]) -> Difference:
    ours, others = ([result.values[seed] for seed in seeds] for result in (first, second))
    differences = np.subtract(ours, others)
    low = high = p = None
    if np.ptp(differences) > 1e-9:
        test = stats.ttest_rel(ours, others)
        interval = test.confidence_interval(0.95)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    labels = first.row.label, second.row.label
    average = float(differences.mean())
    return Difference(first.row.group, *labels, len(seeds), average, low, high, p)


def _value(run: PlannedRun, measure: str) -> float | None:
    """A run's number, in the unit of the table; None before it has ended."""
    row = run.result()
    if row is None:
        return None
    if measure in row:
        return MEASURES[measure][1] * float(row[measure])
    path = run.folder / RESPONSES
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["step"] != row["step"]:
        return None
    responses = found["responses"]
    return float(responses[measure.replace("response", "stage")] / responses["stage1"])
