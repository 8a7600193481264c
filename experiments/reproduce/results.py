"""A table with the paper's numbers and ours, for people and for programs."""

import datetime
import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.reproduce.responses import RESPONSES
from experiments.reproduce.runs import PlannedRun
from experiments.reproduce.scales import Scale
from experiments.reproduce.tables import MEASURES, Row, Table
from rattn_jax.report.charts import Axis, Series, chart, charts, number
from rattn_jax.report.rendering import render
from rattn_jax.runs.identity import FREE_KEYS

# Changes by hand under which a run is still the paper's: the paper asks for the second.
_ALLOWED = FREE_KEYS - {"num_train_steps"} | {"dataset.test_exclude_file"}


def mean(values: Sequence[float]) -> float | None:
    """Mean over seeds; None without any."""
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds, of the sample; None for less than two."""
    return statistics.stdev(values) if len(values) > 1 else None


class Result(NamedTuple):
    """What was found for a row.

    Attributes:
        row: the row.
        values: a number for each seed that has ended.
        updates: those done, of the seed that is farthest back.
        num_train_steps: those of a whole run.
    """

    row: Row
    values: list[float]
    updates: int
    num_train_steps: int

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None before the first has ended."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, of the sample; None for less than two."""
        return deviation(self.values)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.mean is None or self.row.paper is None:
            return None
        return self.mean - self.row.paper


class Page(NamedTuple):
    """A table, filled in.

    Attributes:
        name: such as "table3".
        table: what it compares.
        scale_name: name of the schedule.
        scale: the schedule.
        overrides: flags given by hand.
        runs: its runs.
    """

    name: str
    table: Table
    scale_name: str
    scale: Scale
    overrides: Sequence[str]
    runs: Sequence[PlannedRun]

    def results(self) -> list[Result]:
        """A result for each row."""
        found = []
        for row in self.table.rows:
            runs = [run for run in self.runs if run.variant == row.variant]
            values = [_value(run, row.measure) for run in runs]
            found.append(
                Result(
                    row,
                    [value for value in values if value is not None],
                    min(run.steps_done() for run in runs),
                    runs[0].config.num_train_steps,
                )
            )
        return found

    def is_the_papers(self) -> bool:
        """Whether the runs follow the paper's protocol, as far as it is stated."""
        if self.scale_name != "paper" or self._by_hand():
            return False
        return all(
            run.config.dataset.test_exclude_file or run.config.dataset.name != "imagenet2012"
            for run in self.runs
        )

    def _by_hand(self) -> list[str]:
        keys = ((flag, flag.removeprefix("--config.").split("=")[0]) for flag in self.overrides)
        return [flag for flag, key in keys if key not in _ALLOWED]

    def facts(self) -> dict[str, Any]:
        """Where and on what the runs were trained, and on which code, as they note it."""
        records = [record for run in self.runs if (record := run.record())]
        return {
            "datasets": _distinct(
                f"{record['config']['dataset']['name']} ({record['dataset']['num_train']:,} to "
                f"train, {record['dataset']['num_test']:,} to test)"
                for record in records
            ),
            "hardware": _distinct(
                f"{len(record['devices'])} x {record['devices'][0]}" for record in records
            ),
            "commits": _distinct(record["git_commit"] for record in records),
            "versions": _distinct(
                ", ".join(f"{name} {version}" for name, version in record["versions"].items())
                for record in records
            ),
            "date": datetime.date.today().isoformat(),
        }

    def json(self) -> str:
        """For programs; numbers in the units of the table."""
        rows = [
            {
                **result.row._asdict(),
                "variant": result.row.variant.name,
                "ours": result.mean,
                "standard_deviation": result.deviation,
                "values": result.values,
                "difference": result.difference,
                "updates": result.updates,
                "num_train_steps": result.num_train_steps,
            }
            for result in self.results()
        ]
        content = {
            "table": self.name,
            "title": self.table.title,
            "scale": self.scale_name,
            "papers_protocol": self.is_the_papers(),
            "flags": list(self.overrides),
            "rows": rows,
            **self.facts(),
        }
        return json.dumps(content, indent=2) + "\n"

    def markdown(self) -> str:
        """For people."""
        results = self.results()
        grouped = any(result.row.group for result in results)
        header = ["", "paper", "ours", "deviation", "seeds", "difference", "updates"]
        lines = [
            [*([result.row.group] if grouped else []), *_cells(result, ranks=self.scale.ranks)]
            for result in results
        ]
        measures = dict.fromkeys(MEASURES[result.row.measure][0] for result in results)
        number, title = self.name.removeprefix("table").removeprefix("figure"), self.table.title
        kind = "Figure" if self.name.startswith("figure") else "Table"
        return "\n".join(
            [
                f"# {kind} {number}: {title}",
                "",
                f"Schedule: {self.scale.text}.",
                *self._warnings(),
                "",
                f"Numbers are {' and '.join(measures)}.",
                "",
                *_rows([[""] * grouped + header, *lines]),
                "",
                *(self._order(results) if self.scale.ranks else []),
                *self.table.notes,
                "",
                *(f"- {key}: {_text(value)}" for key, value in self.facts().items()),
                "",
            ]
        )

    def drawing(self) -> str | None:
        """Figure 4 as a page; None of a table."""
        if not self.name.startswith("figure"):
            return None
        lines, results = [], self.results()
        for variant in self.table.variants():
            found = [result for result in results if result.row.variant == variant]
            points = [(int(r.row.measure[-1]), r.mean) for r in found if r.mean is not None]
            lines.append(Series(found[0].row.label, [(1, 1.0), *points] if points else []))
        axis = Axis(number, log=True)
        shown = chart("Response", "to stage 1", lines, axis, across="stage", places=(1, 2, 3))
        text = f"Schedule: {self.scale.text}."
        return render("figure.html", title=self.table.title, text=text, charts=charts([shown]))

    def _warnings(self) -> list[str]:
        if by_hand := self._by_hand():
            return [f"Changed by hand, so NOT the paper's protocol: {' '.join(by_hand)}"]
        if self.scale_name == "paper" and not self.is_the_papers():
            return ["All validation images, blacklisted ones too, so NOT the paper's protocol."]
        return []

    def _order(self, results: Sequence[Result]) -> list[str]:
        """How each group is ordered, from the lowest error, by the paper and by us."""
        lines = []
        for group in dict.fromkeys(result.row.group for result in results):
            members = [result for result in results if result.row.group == group]
            if any(result.mean is None or result.row.paper is None for result in members):
                continue
            theirs = [r.row.label for r in sorted(members, key=lambda r: r.row.paper or 0)]
            ours = [r.row.label for r in sorted(members, key=lambda r: r.mean or 0)]
            verdict = "the paper's order" if ours == theirs else f"the paper: {' < '.join(theirs)}"
            few = "; one seed, so chance may have a part" if len(members[0].values) == 1 else ""
            name = f"{group}: " if group else ""
            lines.append(f"- {name}{' < '.join(ours)} ({verdict}{few})")
        return ["Order by error:", "", *lines, ""] if lines else []


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
    responses = json.loads(path.read_text())["responses"]
    return float(responses[measure.replace("response", "stage")] / responses["stage1"])


def _cells(result: Result, *, ranks: bool) -> list[str]:
    def text(value: float | None, form: str = ".2f") -> str:
        return "" if value is None else f"{value:{form}}"

    updates = f"{result.updates:,}"
    if result.updates < result.num_train_steps:
        updates += f" of {result.num_train_steps:,}"
    return [
        result.row.label,
        text(result.row.paper),
        text(result.mean),
        text(result.deviation),
        str(len(result.values)),
        text(result.difference, "+.2f") if ranks else "",
        updates,
    ]


def _rows(cells: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "; ".join(value) or "none yet"
