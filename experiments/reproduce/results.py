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
        training_errors: error in % on the last training batches of each of these seeds.
        num_diverged: number of seeds whose run has stopped at NaN or infinity.
    """

    row: Row
    values: dict[int, float]
    updates: int
    num_train_steps: int
    training_errors: tuple[float, ...] = ()
    num_diverged: int = 0

    @property
    def is_ratio(self) -> bool:
        """Whether the numbers are responses, whose mean is the geometric one."""
        return not self.row.measure.startswith("error")

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None before the first has ended."""
        values = [*self.values.values()]
        if values and self.is_ratio:
            return statistics.geometric_mean(values) if min(values) > 0 else 0.0
        return mean(values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, of the sample; None for less than two, and of ratios."""
        return None if self.is_ratio else deviation([*self.values.values()])

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
        corrected: the same, corrected for the number of tests of the table (Holm).
        paper: what it is in the paper; None if that is not printed.
    """

    group: str
    first: str
    second: str
    seeds: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    corrected: float | None = None
    paper: float | None = None


def read_result(row: Row, runs: Sequence[PlannedRun], *, pooled: bool = False) -> Result:
    """Reads the result of a row from its runs.

    Args:
        row: the row.
        runs: the runs of its table.
        pooled: whether errors are of the held-out examples as well as of the test split.
    """
    own = [run for run in runs if run.variant == row.variant]
    values = {run.seed: _value(run, row.measure, pooled=pooled) for run in own}
    training = (run.last_rows().get("train", {}).get("error_top1") for run in own)
    return Result(
        row,
        {seed: value for seed, value in values.items() if value is not None},
        min(run.steps_done() for run in own),
        own[0].config.num_train_steps,
        tuple(100 * error for error in training if error is not None),
        sum(run.has_diverged() for run in own),
    )


def rises(results: Sequence[Result], baseline: str) -> list[Result]:
    """By how much errors have risen over those of the baseline, seed by seed.

    Args:
        results: the results of a table.
        baseline: a group, whose rows have the same labels as those of the others.
    """
    plain = {result.row.label: result for result in results if result.row.group == baseline}
    found = []
    for result in results:
        if result.row.group == baseline:
            continue
        base = plain[result.row.label]
        seeds = result.values.keys() & base.values.keys()
        values = {seed: result.values[seed] - base.values[seed] for seed in sorted(seeds)}
        paper = None
        if result.row.paper is not None and base.row.paper is not None:
            paper = result.row.paper - base.row.paper
        found.append(result._replace(row=result.row._replace(paper=paper), values=values))
    return found


def holm(values: Sequence[float]) -> list[float]:
    """Values of p, corrected for their number (Holm 1979)."""
    order, corrected, largest = np.argsort(values), [1.0] * len(values), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def compare(results: Sequence[Result]) -> list[Difference]:
    """Compares each pair of rows of a group by their errors, if they have two seeds in common."""
    found = []
    for first, second in itertools.combinations(results, 2):
        seeds = sorted(first.values.keys() & second.values.keys())
        same = first.row.group == second.row.group
        if same and len(seeds) > 1 and first.row.measure.startswith("error"):
            found.append(_difference(first, second, seeds))
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else one._replace(corrected=next(corrected)) for one in found]


def _difference(first: Result, second: Result, seeds: Sequence[int]) -> Difference:
    ours, others = ([result.values[seed] for seed in seeds] for result in (first, second))
    differences = np.subtract(ours, others)
    low = high = p = None
    if np.ptp(differences) > 1e-9:
        test = stats.ttest_rel(ours, others)
        interval = test.confidence_interval(0.95)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    labels = first.row.label, second.row.label
    average, paper = float(differences.mean()), None
    if first.row.paper is not None and second.row.paper is not None:
        paper = first.row.paper - second.row.paper
    return Difference(first.row.group, *labels, len(seeds), average, low, high, p, paper=paper)


def _value(run: PlannedRun, measure: str, *, pooled: bool) -> float | None:
    """A run's number, in the unit of the table.

    None before it has ended, and for a response that is relative to one of 0.
    """
    rows, record = run.last_rows(), run.record()
    row = rows.get("test")
    if row is None or record is None:
        return None
    if measure in row:
        counts = {"test": record["dataset"]["num_test"]}
        if pooled:
            counts["validation"] = run.config.validation_examples
        errors = [float(rows[split][measure]) for split in counts]
        return MEASURES[measure][1] * float(np.average(errors, weights=[*counts.values()]))
    path = run.folder / RESPONSES
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["step"] != row["step"]:
        return None
    responses = found["responses"]
    if measure == "response1":
        return float(responses["stage1"])
    response = float(responses[measure.replace("response", "stage")])
    return response / responses["stage1"] if responses["stage1"] else None
