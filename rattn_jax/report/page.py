"""The report page of a run."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rattn_jax.config.load import flatten, read_config
from rattn_jax.config.schema import KeepBestConfig
from rattn_jax.data.class_names import readable_names
from rattn_jax.report.charts import Axis, Series, chart, charts, number, percent
from rattn_jax.report.confusion import (
    Mistakes,
    class_section,
    confusion_section,
    error_rate,
    error_text,
    mistakes_section,
)
from rattn_jax.report.mask_health import Observation, alarm, health_section, overlay_section
from rattn_jax.report.rendering import render
from rattn_jax.report.unsettled import explain_loss
from rattn_jax.runs.best import best_row

PAGE = "report.html"
_SPLITS = ("train", "validation", "test")  # in this order, so that each split keeps its line style


class Evaluated(NamedTuple):
    """Results of an evaluation.

    Attributes:
        split: name of the split.
        confusion: int32 [K, K], see `EvalSums` of training.
        mistakes: the most confident mistakes, used slots only.
        mistaken_images: their images, uint8 [n, H, W, 3].
    """

    split: str
    confusion: np.ndarray
    mistakes: Mistakes
    mistaken_images: np.ndarray


class Masks(NamedTuple):
    """Masks of the attention modules.

    Attributes:
        split: split of the images.
        images: uint8 [n, H, W, 3].
        labels: their classes, int32 [n].
        seen: their masks, and statistics.
        history: mask_health.jsonl, oldest line first; the last one is of this evaluation.
    """

    split: str
    images: np.ndarray
    labels: np.ndarray
    seen: Observation
    history: Sequence[Mapping[str, Any]]


def run_page(
    folder: str,
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    evaluated: Evaluated,
    masks: Masks | None,
) -> str:
    """Renders the page.

    Args:
        folder: folder of the run.
        record: config.json.
        rows: metrics.jsonl.
        counts: number of examples of each evaluated split.
        evaluated: the latest evaluation.
        masks: None if the network has no attention modules.
    """
    config, names = record["config"], readable_names(record["dataset"]["class_names"])
    title = f"{config['model']['name']} on {config['dataset']['name']}"
    count = counts[evaluated.split]
    warning = masks and alarm(masks.history[-1], config["model"]["attention_residual"] is not False)
    early = explain_loss(rows, evaluated.split, len(names))
    sections = [
        confusion_section(evaluated.split, evaluated.confusion, names),
        class_section(evaluated.confusion, names),
        mistakes_section(
            evaluated.split, count, evaluated.mistakes, evaluated.mistaken_images, names
        ),
    ]
    if masks:
        labels = [names[label] for label in masks.labels]
        sections.append(overlay_section(masks.split, masks.images, labels, masks.seen))
        sections.append(health_section(masks.history, warning))
    return render(
        "run.html",
        title=title,
        folder=folder,
        update=_newest(rows)[evaluated.split]["step"],
        result=_result(rows, counts, evaluated.split, config["num_train_steps"]),
        best=_best(rows, read_config(config).keep_best),
        early=f"{early[0].upper()}{early[1:]}." if early else "",
        warning=warning,
        curves=curves(rows),
        sections=sections,
        facts=_facts(record),
        config=[(k, "" if v is None else v) for k, v in flatten(config).items()],
        now=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def shows_update(page: str, step: int) -> bool:
    """Whether a page shows the evaluation at `step`."""
    return f'<main data-update="{step}">' in page


def _newest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The latest line of each split."""
    return {row["split"]: row for row in rows}


class _Result(NamedTuple):
    """The error in large letters, the text beside it, and a line for each split."""

    error: str
    text: str
    rows: list[tuple[Any, ...]]


def _result(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    split: str,
    num_train_steps: int,
) -> _Result:
    newest = _newest(rows)
    last = newest[split]
    rate = error_rate(last["error_top1"], counts[split])
    state = "finished" if last["step"] >= num_train_steps else f"of {num_train_steps:,}"
    return _Result(
        rate.text,
        f"{split} error (95 % interval {rate.interval}, {counts[split]:,} images) after "
        f"{last['step']:,} updates, {state}{_several_classes(last)}",
        [
            (
                name,
                f"{newest[name]['step']:,}",
                error_text(newest[name]["error_top1"], counts.get(name)),
                f"{100 * newest[name]['error_top5']:.2f} %",
                f"{newest[name]['loss']:.4f}",
            )
            for name in _SPLITS
            if name in newest
        ],
    )


def _several_classes(row: Mapping[str, Any]) -> str:
    """What is measured where images have several classes."""
    if row.get("mean_average_precision") is None:
        return ""
    return (
        f"; mean average precision {row['mean_average_precision']:.4f}, F1 {row['f1_macro']:.4f} "
        f"(mean of the classes), {row['f1_micro']:.4f} (of all decisions)"
    )


def _best(rows: Sequence[Mapping[str, Any]], keep_best: KeepBestConfig) -> dict[str, Any] | None:
    """The best evaluation, if the run keeps its checkpoint."""
    best = best_row(rows, keep_best)
    if best is None or keep_best.metric is None:
        return None
    value = f"{best[keep_best.metric]:.4f}"
    return {**best, "metric": keep_best.metric, "value": value}


def curves(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Errors, loss, learning rate and throughput over the updates."""

    def lines(key: str) -> list[Series]:
        return [
            Series(
                split,
                [(row["step"], row[key]) for row in rows if row["split"] == split and key in row],
            )
            for split in _SPLITS
        ]

    rates = {row["step"]: row["learning_rate"] for row in rows}
    rate = [Series("learning rate", sorted(rates.items()))]
    precision = lines("mean_average_precision")
    return charts(
        [
            *(
                [chart("Mean average precision", "of the classes", precision, Axis(percent))]
                if any(series.points for series in precision)
                else []
            ),
            chart("Error", "top-1", lines("error_top1"), Axis(percent, low=0.0)),
            chart("Loss", "cross entropy in nats", lines("loss"), Axis(number, low=0.0)),
            chart("Learning rate", "of the last update", rate, Axis(number, log=True)),
            chart(
                "Throughput", "images a second", lines("images_per_second"), Axis(number, low=0.0)
            ),
        ]
    )


def _facts(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Commit, devices, versions and sizes of the dataset."""
    devices = record["devices"]
    kinds = ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
    dataset = record["dataset"]
    return [
        ("commit", record["git_commit"] or "not known"),
        ("devices", kinds),
        *((name, version) for name, version in record["versions"].items()),
        *((key, f"{value:,}") for key, value in dataset.items() if isinstance(value, int)),
        ("classes", len(dataset["class_names"])),
    ]
