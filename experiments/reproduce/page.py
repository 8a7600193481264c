"""A table with the paper's numbers and ours, for people and for programs."""

import datetime
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.reproduce.results import (
    Difference,
    Result,
    compare,
    mean,
    read_result,
    rises,
)
from experiments.reproduce.runs import PlannedRun
from experiments.reproduce.scales import Scale
from experiments.reproduce.tables import MEASURES, Table
from rattn_jax.config.load import key_of
from rattn_jax.report.charts import Axis, Series, chart, charts, number
from rattn_jax.report.rendering import render
from rattn_jax.runs.identity import FREE_KEYS

_SURE = 0.05  # the largest p, corrected, with which rows are told apart
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
        pooled = self.scale.own_splits
        return [read_result(row, self.runs, pooled=pooled) for row in self.table.rows]

    def is_the_papers(self) -> bool:
        """Whether the runs follow the paper's protocol, as far as the paper states it."""
        if self.scale_name != "paper" or self._by_hand():
            return False
        return all(
            run.config.dataset.test_exclude_file or run.config.dataset.name != "imagenet2012"
            for run in self.runs
        )

    def _by_hand(self) -> list[str]:
        return [flag for flag in self.overrides if key_of(flag) not in _ALLOWED]

    def facts(self) -> dict[str, Any]:
        """Data, hardware, commits and versions of the runs, from their records."""
        records = [record for run in self.runs if (record := run.record())]
        return {
            "datasets": _distinct(
                f"{record['config']['dataset']['name']} ({_num_train(record):,} to train, "
                f"{self._num_test(record):,} to test)"
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

    def _num_test(self, record: Mapping[str, Any]) -> int:
        held_out = record["config"]["validation_examples"] if self.scale.own_splits else 0
        return int(record["dataset"]["num_test"] + held_out)

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
                "training_errors": list(result.training_errors),
                "diverged": result.num_diverged,
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
            "differences_of_rises": [one._asdict() for one in compare(self._rises(results))],
            **self.facts(),
        }
        return json.dumps(content, indent=2) + "\n"

    def markdown(self) -> str:
        """For people."""
        results = self.results()
        grouped = any(result.row.group for result in results)
        header = ["", "paper", "ours", "deviation", "seeds", "difference", "in training, %"]
        header.append("updates")
        lines = [
            [*([result.row.group] if grouped else []), *_cells(result, is_near=self.scale.is_near)]
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
                *(self._differences_of_rises(results) if self.scale.ranks else []),
                *_diverged(results),
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
            stages = {int(r.row.measure[-1]): r.mean for r in found if r.mean is not None}
            points = [*(stages | {1: 1.0}).items()] if stages else []
            lines.append(Series(found[0].row.label, points))
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
        lines, found = [], compare(results)
        for group in dict.fromkeys(result.row.group for result in results):
            members = [result for result in results if result.row.group == group]
            if any(result.mean is None or result.row.paper is None for result in members):
                continue
            if any(result.values.keys() != members[0].values.keys() for result in members):
                continue
            paper = {result.row.label: result.row.paper or 0.0 for result in members}
            ours = {result.row.label: result.mean or 0.0 for result in members}
            verdict = (
                "the paper's order" if _agree(paper, ours) else f"the paper: {_ranking(paper)}"
            )
            doubt = _doubt(members, [one for one in found if one.group == group])
            name = f"{group}: " if group else ""
            lines.append(f"- {name}{_ranking(ours)} ({verdict}{doubt})")
        return ["Order by error:", "", *lines, ""] if lines else []

    def _rises(self, results: Sequence[Result]) -> list[Result]:
        return rises(results, self.table.baseline) if self.table.baseline else []

    def _differences_of_rises(self, results: Sequence[Result]) -> list[str]:
        lines = _differences(self._rises(results))
        return (
            [f"The same, of how much errors rise over those of {self.table.baseline}.", "", *lines]
            if lines
            else []
        )


def _num_train(record: Mapping[str, Any]) -> int:
    return int(record["dataset"]["num_train"] - record["config"]["validation_examples"])


def _agree(paper: Mapping[str, float], ours: Mapping[str, float]) -> bool:
    """Whether our numbers have the paper's order; what is equal there may have either."""
    pairs = itertools.combinations(paper, 2)
    return all(
        paper[a] == paper[b] or (paper[a] - paper[b]) * (ours[a] - ours[b]) > 0 for a, b in pairs
    )


def _ranking(numbers: Mapping[str, float]) -> str:
    """The labels in the order of their numbers, such as "a < b = c"."""
    labels = sorted(numbers, key=lambda label: numbers[label])
    signs = [
        f" {'=' if numbers[a] == numbers[b] else '<'} {b}" for a, b in itertools.pairwise(labels)
    ]
    return labels[0] + "".join(signs)


def _doubt(members: Sequence[Result], differences: Sequence[Difference]) -> str:
    """What is to be said of the order of some rows, whose differences these are, by their means."""
    if len(members[0].values) == 1:
        return "; one seed, so chance may have a part"
    told = [one.corrected is not None and one.corrected < _SURE for one in differences]
    return "" if all(told) else "; by means alone, for not all are told apart below"


def _diverged(results: Sequence[Result]) -> list[str]:
    labels = [f"{r.row.group} {r.row.label}".strip() for r in results if r.num_diverged]
    if not labels:
        return []
    return [
        f"Runs of {', '.join(dict.fromkeys(labels))} have ended at NaN or infinity. They have no "
        "error and are left out, which makes these rows look better than they are.",
        "",
    ]


def _cells(result: Result, *, is_near: bool) -> list[str]:
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
        str(len(result.values)) + (f", {n} diverged" if (n := result.num_diverged) else ""),
        text(result.difference, "+.2f") if is_near else "",
        text(mean(result.training_errors)),
        updates,
    ]


def _differences(results: Sequence[Result]) -> list[str]:
    """The paired comparisons of rows, as Markdown."""
    found = compare(results)
    if not found:
        return []
    num_tests = sum(one.p is not None for one in found)
    rows = [["", "difference", "95 % interval", "p", "p, corrected", "seeds", "in the paper"]]
    for one in found:
        group = f"{one.group}: " if one.group else ""
        tested = one.p is not None
        rows.append(
            [
                f"{group}{one.first} minus {one.second}",
                f"{one.mean:+.2f}",
                f"{one.low:+.2f} to {one.high:+.2f}" if tested else "",
                f"{one.p:.3f}" if tested else "",
                f"{one.corrected:.3f}" if tested else "",
                str(one.seeds),
                "" if one.paper is None else f"{one.paper:+.2f}",
            ]
        )
    return [
        "Differences of errors in percentage points, over pairs of runs with the same seed. p is "
        f"that of a two-sided paired t-test, and corrected for there being {num_tests} of them "
        "(Holm). A large p does not say that rows are equal: the interval says how far apart they "
        "may be.",
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
