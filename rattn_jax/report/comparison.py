"""A page that compares runs: final numbers, curves, and differences of their configs.

page = compare_page([read_run("runs/a", "a"), read_run("runs/b", "b")])
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from rattn_jax.config.load import flatten, read_config, with_new_names
from rattn_jax.config.paths import path_of
from rattn_jax.errors import UsageError
from rattn_jax.report.charts import Axis, Series, chart, charts, number, percent
from rattn_jax.report.confusion import error_text
from rattn_jax.report.rendering import render
from rattn_jax.report.scores import percents
from rattn_jax.runs.best import early_end
from rattn_jax.runs.rows import read_rows
from rattn_jax.runs.workdir import RECORD

_SHOWN = 10  # different values of a list
_COLUMNS = (
    "run",
    "network",
    "split",
    "update",
    "top-1 error (95 % interval)",
    "accuracy",
    "top-5 error",
    "loss",
)
# Where images have several classes: their columns, and the keys in metrics.jsonl.
_SEVERAL_CLASSES = ("mean average precision", "macro F1")
_MEASURES = ("mean_average_precision", "f1_macro")


class Run(NamedTuple):
    """A run.

    Attributes:
        name: its name on the page.
        record: its config.json.
        rows: its metrics.jsonl, oldest line first.
    """

    name: str
    record: Mapping[str, Any]
    rows: list[dict[str, Any]]

    def newest(self, *splits: str) -> dict[str, Any] | None:
        """The newest line of the first of these splits that has one."""
        for split in splits:
            for row in reversed(self.rows):
                if row["split"] == split:
                    return row
        return None

    def examples(self, split: str) -> int | None:
        """Number of examples of a split that is evaluated; None if it is not known."""
        config, dataset = self.record["config"], self.record["dataset"]
        if split == "validation":
            return config["validation_examples"]
        return None if config["dataset"]["test_exclude_file"] else dataset["num_test"]


def read_run(path: str, name: str) -> Run:
    """Reads a run's folder.

    Raises:
        UsageError: the folder is not that of a run, or a line of its metrics is damaged.
    """
    folder = path_of(path)
    try:
        record = json.loads((folder / RECORD).read_text())
        record["config"] = with_new_names(record["config"])
        metrics = folder / "metrics.jsonl"
        metrics.stat()  # raises if it is missing
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{path} cannot be read as the folder of a run ({reason}): must hold {RECORD} and "
            "metrics.jsonl; give the workdir of a run that has begun to train"
        ) from error
    return Run(name, record, read_rows(metrics))


def compare_page(runs: Sequence[Run]) -> str:
    """The page."""
    return render(
        "comparison.html",
        title="Runs compared",
        names=[run.name for run in runs],
        columns=_COLUMNS + (_SEVERAL_CLASSES if _has_several_classes(runs) else ()),
        results=_results(runs),
        curves=_curves(runs),
        differences=_differences(runs),
    )


def _results(runs: Sequence[Run]) -> list[tuple[Any, ...]]:
    measures = ["loss", *(_MEASURES if _has_several_classes(runs) else ())]
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        row = run.newest("test", "validation")
        network = run.record["config"]["model"]["name"]
        if row is None:
            rows.append((run.name, network, "not evaluated yet"))
            continue
        count = run.examples(row["split"])
        config = read_config(run.record["config"])
        ended = early_end(run.rows, config.keep_best, config.num_train_steps)
        total = f"{row['step']:,} of {config.num_train_steps:,}"
        progress = f"{row['step']:,}, {ended}" if ended else total
        error = error_text(row["error_top1"], count)
        top1, top5 = (math.nan if row[k] is None else row[k] for k in ("error_top1", "error_top5"))
        shares = percents([1 - top1, top5])
        shown = (run.name, network, row["split"], progress, error, *shares)
        rows.append((*shown, *(_four_digits(row.get(key)) for key in measures)))
    return rows


def _has_several_classes(runs: Sequence[Run]) -> bool:
    return any(_MEASURES[0] in row for run in runs for row in run.rows)


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _curves(runs: Sequence[Run]) -> Markup:
    def lines(key: str, *splits: str) -> list[Series]:
        return [
            Series(
                run.name,
                [(r["step"], r[key]) for r in run.rows if r["split"] in splits and key in r],
            )
            for run in runs
        ]

    def rates(run: Run) -> list[tuple[float, float]]:
        return sorted({row["step"]: row["learning_rate"] for row in run.rows}.items())

    share, plain = Axis(percent, low=0.0), Axis(number, low=0.0)
    precisions = [
        chart(f"{split.capitalize()} mean average precision", "", lines(_MEASURES[0], split), share)
        for split in ("validation", "test")
    ]
    of_splits = [
        drawn
        for split in ("validation", "test", "train")
        for drawn in (
            chart(f"{split.capitalize()} error", "top-1", lines("error_top1", split), share),
            chart(f"{split.capitalize()} loss", "nats", lines("loss", split), plain),
        )
    ]
    return charts(
        [
            *precisions,
            *of_splits,
            chart(
                "Learning rate",
                "of the last update",
                [Series(run.name, rates(run)) for run in runs],
                Axis(number, log=True),
            ),
            chart(
                "Throughput", "training images a second", lines("images_per_second", "train"), plain
            ),
        ]
    )


def _differences(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Differences in config, dataset, versions, devices and commit."""
    facts = [flatten(run.record) for run in runs]
    keys = dict.fromkeys(key for fact in facts for key in fact)
    return [
        (key.removeprefix("config."), *_shown([fact.get(key) for fact in facts]))
        for key in keys
        if any(fact.get(key) != facts[0].get(key) for fact in facts)
    ]


def _shown(values: Sequence[Any]) -> list[str]:
    """Different values of a key as text; of long lists that look alike, the first difference."""
    texts = [_text(value) for value in values]
    lists = [value if isinstance(value, list) else [] for value in values]
    if len({(t, str(v)) for t, v in zip(texts, lists, strict=True)}) == len({*texts}):
        return texts
    columns = enumerate(itertools.zip_longest(*lists))
    place = next(i for i, column in columns if any(item != column[0] for item in column))
    return [
        f"{text}, number {place + 1} is {value[place]}" if len(value) > place else text
        for text, value in zip(texts, lists, strict=True)
    ]


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        counts = Counter(map(str, value))
        if len(counts) > _SHOWN:
            return f"{len(value)} values"
        return ", ".join(f"{count} x {item}" for item, count in counts.items())
    return "not set" if value is None else str(value)
