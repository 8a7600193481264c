"""A table with the paper's numbers and ours, for people and for programs."""

import datetime
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.reproduce.results import Result, compare, read_result
from experiments.reproduce.runs import PlannedRun
from experiments.reproduce.scales import Scale
from experiments.reproduce.tables import MEASURES, Table
from rattn_jax.report.charts import Axis, Series, chart, charts, number
from rattn_jax.report.rendering import render
from rattn_jax.runs.identity import FREE_KEYS

# Changes by hand under which a run is still the paper's: the paper asks for the second.
_ALLOWED = FREE_KEYS - {"num_train_steps"} | {"dataset.test_exclude_file"}


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
        return [read_result(row, self.runs) for row in self.table.rows]

    def is_the_papers(self) -> bool:
        """Whether the runs follow the paper's protocol, as far as the paper states it."""
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
        """Data, hardware, commits and versions of the runs, from their records."""
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
        results = self.results()
        rows = [
            {
                **result.row._asdict(),
                "variant": result.row.variant.name,
                "ours": result.mean,
                "standard_deviation": result.deviation,
                "seeds": list(result.values),
                "values": list(result.values.values()),
                "difference": result.difference,
                "updates": result.updates,
                "num_train_steps": result.num_train_steps,
            }
            for result in results
        ]
        content = {
            "table": self.name,
            "title": self.table.title,
            "scale": self.scale_name,
            "papers_protocol": self.is_the_papers(),
            "flags": list(self.overrides),
            "rows": rows,
            "differences": [difference._asdict() for difference in compare(results)],
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
                *(_differences(results) if self.scale.ranks else []),
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
        """The order of each group's rows by error, in the paper and here."""
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


def _differences(results: Sequence[Result]) -> list[str]:
    """The paired comparisons of rows, as Markdown."""
    found = compare(results)
    if not found:
        return []
    rows = [["", "difference", "95 % interval", "p", "seeds"]]
    for one in found:
        group = f"{one.group}: " if one.group else ""
        tested = one.p is not None
        rows.append(
            [
                f"{group}{one.first} minus {one.second}",
                f"{one.mean:+.2f}",
                f"{one.low:+.2f} to {one.high:+.2f}" if tested else "",
                f"{one.p:.3f}" if tested else "",
                str(one.seeds),
            ]
        )
    return [
        "Differences of errors in percentage points, over pairs of runs with the same seed. p is "
        f"that of a two-sided paired t-test, not corrected for there being {len(found)} of them:",
        "",
        *_rows(rows),
        "",
    ]


def _rows(cells: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "; ".join(value) or "none yet"
