"""The report page of a run."""

import datetime
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rattn_jax.config.load import flatten, read_config
from rattn_jax.config.schema import FOLDER, SIGMOID, KeepBestConfig, RunConfig
from rattn_jax.data.class_names import readable_names
from rattn_jax.report.calibration import calibration_section
from rattn_jax.report.charts import Axis, Series, chart, charts, number, percent
from rattn_jax.report.confusion import (
    class_section,
    confusion_section,
    error_rate,
    error_text,
)
from rattn_jax.report.mask_health import Observation, alarm, health_section, overlay_section
from rattn_jax.report.mistakes import Mistaken, mistakes_section
from rattn_jax.report.rendering import render
from rattn_jax.report.scores import Calibration, percents
from rattn_jax.report.unsettled import explain_loss
from rattn_jax.runs.best import best_row, best_step, early_end

PAGE = "report.html"
_SPLITS = ("train", "validation", "test")  # in this order, so that each split keeps its line style


class Evaluated(NamedTuple):
    """Results of an evaluation.

    Attributes:
        split: name of the split.
        confusion: int32 [K, K], see `EvalSums` of training.
        calibration: see `Calibration`.
        mistaken: the most confident mistakes.
    """

    split: str
    confusion: np.ndarray
    calibration: Calibration
    mistaken: Mistaken


class Masks(NamedTuple):
    """Masks of the attention modules.

    Attributes:
        split: split of the images.
        images: uint8 [n, H, W, 3].
        labels: their classes, int32 [n]; -1 of images of no class.
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
    num_parameters: int,
    saved: Collection[int],
) -> str:
    """Renders the page.

    Args:
        folder: folder of the run.
        record: config.json.
        rows: metrics.jsonl.
        counts: number of examples of each evaluated split.
        evaluated: the latest evaluation.
        masks: None if the network has no attention modules.
        num_parameters: parameters of the network.
        saved: steps of the checkpoints.
    """
    config, names = record["config"], readable_names(record["dataset"]["class_names"])
    typed, split = read_config(config), evaluated.split
    epoch = (record["dataset"]["num_train"] - typed.validation_examples) / typed.batch_size
    last = _newest(rows)[split]
    warning = masks and alarm(masks.history[-1], config["model"]["attention_residual"] is not False)
    place = typed.dataset.name.removeprefix(FOLDER)
    num_errors = round(last["error_top1"] * counts[split])
    sections = [
        render(
            "beside.html",
            sections=[
                confusion_section(split, evaluated.confusion, names),
                class_section(
                    evaluated.confusion, names, _NEAREST if typed.loss == SIGMOID else ""
                ),
            ],
        ),
        calibration_section(split, evaluated.calibration),
        mistakes_section(evaluated.mistaken, num_errors, names, place),
    ]
    if masks:
        sections += _mask_sections(masks, names, warning)
    return render(
        "run.html",
        title=f"{config['model']['name']} on {config['dataset']['name']}",
        folder=folder,
        update=last["step"],
        result=_result(rows, counts, split, typed, epoch),
        summary=_summary(rows, split, epoch, num_parameters),
        best=_best(rows, typed.keep_best, epoch, saved),
        early=_early(rows, split, typed, len(names)),
        warning=warning,
        curves=curves(rows, epoch),
        sections=sections,
        facts=_facts(record),
        config=[(k, "" if v is None else v) for k, v in flatten(config).items()],
        now=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _mask_sections(masks: Masks, names: Sequence[str], warning: str | None) -> list[Markup]:
    labels = [names[label] if label >= 0 else "none" for label in masks.labels]
    return [
        overlay_section(masks.split, masks.images, labels, masks.seen),
        health_section(masks.history, warning),
    ]


def _early(
    rows: Sequence[Mapping[str, Any]], split: str, config: RunConfig, num_classes: int
) -> str:
    """A sentence on an early loss that looks broken; "" if there is none."""
    if config.freeze_batch_norm:  # then training normalises by the running averages, too
        return ""
    text = explain_loss(rows, split, 2 if config.loss == SIGMOID else num_classes)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def update_shown(page: str) -> int:
    """The step of the evaluation that a page shows; -1 if it shows none."""
    found = re.search(r'<main data-update="(\d+)">', page)
    return int(found[1]) if found else -1


def _newest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The latest line of each split."""
    return {row["split"]: row for row in rows}


_NEAREST = (
    "An image of several classes counts once here and among the confusions, under the one of them "
    "to which the network gives the largest probability."
)


class _Result(NamedTuple):
    """Accuracy and error in large letters, the text beside it, and a line for each split."""

    accuracy: str
    error: str
    text: str
    rows: list[tuple[Any, ...]]


def _result(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    split: str,
    config: RunConfig,
    epoch: float,
) -> _Result:
    newest = _newest(rows)
    last = newest[split]
    rate = error_rate(_known(last, "error_top1"), counts[split])
    state = early_end(rows, config.keep_best, config.num_train_steps)
    if state is None:
        is_over = last["step"] >= config.num_train_steps
        state = "finished" if is_over else f"of {config.num_train_steps:,}"
    return _Result(
        percents([1 - _known(last, "error_top1")])[0],
        rate.text,
        f"{split} error (95 % interval {rate.interval}, {counts[split]:,} images) after "
        f"{last['step']:,} updates, {state}{_several_classes(last)}",
        [
            (
                name,
                f"{row['step']:,}",
                f"{row['step'] / epoch:.2f}",
                error_text(_known(row, "error_top1"), counts.get(name)),
                *percents(
                    [
                        1 - _known(row, "error_top1"),
                        _known(row, "balanced_accuracy"),
                        _known(row, "error_top5"),
                        _known(row, "ece"),
                    ]
                ),
                f"{_known(row, 'loss'):.4f}",
            )
            for name in _SPLITS
            if (row := newest.get(name))
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


def _known(row: Mapping[str, Any], key: str) -> float:
    """A value of a line; NaN if it has none, as an older one or one of a train split."""
    value = row.get(key)
    return math.nan if value is None else value


def _summary(
    rows: Sequence[Mapping[str, Any]], split: str, epoch: float, num_parameters: int
) -> list[tuple[str, str]]:
    """Size, length, time and speed of the run."""
    steps, times = rows[-1]["step"], [row["time"] for row in rows if "time" in row]
    facts = [
        ("parameters", f"{num_parameters:,}"),
        ("epochs", f"{steps / epoch:.2f}; one is {epoch:,.2f} updates"),
    ]
    if times:
        seconds = datetime.timedelta(seconds=round(max(times) - min(times)))
        facts.append(("wall time", f"{seconds}, from the first line of metrics to the last"))
    for name, kind in (("train", "training"), (split, "evaluation")):
        speeds = [r["images_per_second"] for r in rows if r["split"] == name]
        if speeds := [speed for speed in speeds if speed]:
            facts.append((f"speed of {kind}", f"{speeds[-1]:,.0f} images a second"))
    return facts


def _best(
    rows: Sequence[Mapping[str, Any]],
    keep_best: KeepBestConfig,
    epoch: float,
    saved: Collection[int],
) -> dict[str, Any] | None:
    """The best evaluation: as the run chooses it, or the one with the lowest error."""
    kept = best_step(rows, keep_best, saved)
    if keep_best.metric is None:
        held_out = any(row["split"] == "validation" for row in rows)
        split = "validation" if held_out else "test"
        keep_best = KeepBestConfig(metric="error_top1", split=split)
    best = best_row(rows, keep_best)
    if best is None or keep_best.metric is None:
        return None
    return {
        "step": f"{best['step']:,}",
        "epochs": f"{best['step'] / epoch:.2f}",
        "split": best["split"],
        "metric": keep_best.metric,
        "value": f"{best[keep_best.metric]:.4f}",
        "is_kept": best["step"] == kept,
        "kept": None if kept is None else f"{kept:,}",
    }


def curves(rows: Sequence[Mapping[str, Any]], epoch: float) -> Markup:
    """Errors, loss, learning rate and throughput over the updates.

    Args:
        rows: metrics.jsonl.
        epoch: updates of an epoch, in which each training example is seen once.
    """

    def lines(key: str, splits: Sequence[str] = _SPLITS) -> list[Series]:
        # A split that is left out has no points, so that the others keep their style.
        return [
            Series(
                name,
                [
                    (r["step"], r[key])
                    for r in rows
                    if r["split"] == name and name in splits and key in r
                ],
            )
            for name in _SPLITS
        ]

    def over_updates(title: str, note: str, series: list[Series], axis: Axis) -> Markup:
        return chart(title, note, series, axis, epoch=epoch)

    rates = {row["step"]: row["learning_rate"] for row in rows}
    rate = [Series("learning rate", sorted(rates.items()))]
    share, plain = Axis(percent, low=0.0), Axis(number, low=0.0)
    precision = lines("mean_average_precision")
    shown = [over_updates("Mean average precision", "of the classes", precision, share)]
    return charts(
        [
            *(shown if any(series.points for series in precision) else []),
            over_updates("Error", "top-1", lines("error_top1"), share),
            over_updates("Loss", "cross entropy in nats", lines("loss"), plain),
            over_updates("Learning rate", "of the last update", rate, Axis(number, log=True)),
            *(
                over_updates(
                    f"Speed of {kind}", "images/s", lines("images_per_second", names), plain
                )
                for kind, names in (("training", _SPLITS[:1]), ("evaluation", _SPLITS[1:]))
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
