"""Health of the masks: their values over time, and vanishing responses (paper, figure 4)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from rattn_jax.report.charts import Axis, Series, chart, charts, number, percent
from rattn_jax.report.pictures import color_bar, color_range, data_uri, overlay, thumbnail
from rattn_jax.report.rendering import render

# Number of bins of the histogram of mask values in [0, 1], of 0.05 each. Values in the outer two
# count as saturated, and so do values outside, which channel attention may have.
BINS = 20
COLLAPSED = 0.1  # of the response of the first stage; smaller responses have vanished
_MAX_LINES = 6  # modules in a chart; more are averaged over each stage
_MEASURES = {
    "mean": "of all mask values",
    "saturation": "share of values below 0.05 or above 0.95",
    "entropy": "of the values' distribution: 0 all alike, 1 even",
}


class Observation(NamedTuple):
    """Statistics of masks and responses.

    Attributes:
        masks: mean over channels of the masks of the first images, float32 [n, h, w], by module.
        means: mean of all mask values, by module.
        shares: histogram of the mask values over BINS bins of [0, 1], float32 [BINS], by module.
        responses: mean absolute value of each stage's output, by stage (paper, figure 4).
    """

    masks: dict[str, Any]
    means: dict[str, Any]
    shares: dict[str, Any]
    responses: dict[str, Any]


def saturation(shares: np.ndarray) -> float:
    """Fraction of the values below 0.05 or from 0.95 on."""
    return float(shares[0] + shares[-1])


def entropy(shares: np.ndarray) -> float:
    """Normalised entropy of the histogram: 0 if all values are in one bin, 1 if uniform."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)) / np.log(BINS)) + 0.0


def health_row(step: int, split: str, num_images: int, seen: Observation) -> dict[str, Any]:
    """A line of mask_health.jsonl."""
    modules = {}
    for name, shares in seen.shares.items():
        values = float(seen.means[name]), saturation(shares), entropy(shares)
        found = values if math.isfinite(values[0]) else (None, None, None)
        modules[name] = dict(zip(_MEASURES, found, strict=True))
    responses = {s: float(v) if math.isfinite(v) else None for s, v in seen.responses.items()}
    return {
        "step": step,
        "split": split,
        "images": num_images,
        "modules": modules,
        "responses": responses,
    }


def alarm(row: Mapping[str, Any] | None, attention_residual: bool) -> str | None:
    """Warning if the response of a stage has vanished, otherwise None.

    Args:
        row: latest line of mask_health.jsonl, or None.
        attention_residual: whether the modules add 1 to their masks.
    """
    if row is None:
        return None
    responses = row["responses"].items()
    broken = [stage for stage, value in responses if not math.isfinite(_known(value))]
    if broken:
        return (
            f"The response of {broken[0]} is not a finite number after {row['step']:,} updates: "
            "training has diverged. A lower learning rate may help."
        )
    relative = _relative(row["responses"])
    low = [stage for stage, value in relative.items() if value < COLLAPSED]
    if not low:
        return None
    shown = ", ".join(f"{relative[stage]:.2g} for {stage}" for stage in low)
    is_dead = next(iter(relative.values())) == 0  # the first stage: it is no measure then
    measure = "it is" if is_dead else "relative to the first stage it is"
    reason = (
        "The masks dim what passes through one module after another, and the modules do not add 1 "
        "to them: attention residual learning (model.attention_residual=True) is the remedy."
        if not attention_residual
        else "The modules add 1 to their masks, so these cannot be the whole reason: look at the "
        "learning rate, and at the masks below."
    )
    return (
        f"The response of the feature maps has collapsed: {measure} {shown}"
        f" after {row['step']:,} updates, and below {COLLAPSED} counts as vanished. It is what "
        f"figure 4 of the paper shows for naive attention learning. {reason}"
    )


def _relative(responses: Mapping[str, float | None]) -> dict[str, float]:
    """Responses as shares of the first one; those of 0 are 0, whatever it is."""
    first = _known(next(iter(responses.values())))

    def share(value: float | None) -> float:
        if not value:
            return math.nan if value is None else 0.0
        return value / first if first else math.inf

    return {stage: share(value) for stage, value in responses.items()}


def _known(value: float | None) -> float:
    """A value of a line; NaN if it was not finite."""
    return math.nan if value is None else value


def health_section(rows: Sequence[Mapping[str, Any]], warning: str | None) -> Markup:
    """Charts of mask values and responses, and their latest values."""
    newest = rows[-1]
    figures = [
        chart(name.capitalize(), note, *_lines(rows, name)) for name, note in _MEASURES.items()
    ]
    responses = [
        Series(stage, [(row["step"], _relative(row["responses"])[stage]) for row in rows])
        for stage in newest["responses"]
    ]
    note = "mean absolute output, relative to the first stage"
    figures.append(chart("Response of the stages", note, responses, Axis(number, log=True)))
    text = f"Measured on the first {newest['images']} {newest['split']} images"
    averaged = len(newest["modules"]) > _MAX_LINES
    text += "; lines are averages over the modules of a stage." if averaged else "."
    modules = [
        (name, f"{mean:.3f}", f"{100 * saturated:.1f} %", f"{spread:.2f}")
        for name, m in newest["modules"].items()
        for mean, saturated, spread in [map(_known, (m[measure] for measure in _MEASURES))]
    ]
    relative = _relative(newest["responses"]).items()
    stages = [(s, f"{_known(newest['responses'][s]):.4g}", f"{v:.3g}") for s, v in relative]
    return render(
        "health.html",
        text=text,
        warning=warning,
        charts=charts(figures),
        update=f"{newest['step']:,}",
        measures=list(_MEASURES),
        modules=modules,
        stages=stages,
    )


def _lines(rows: Sequence[Mapping[str, Any]], measure: str) -> tuple[list[Series], Axis]:
    groups = {name: [name] for name in rows[-1]["modules"]}
    if len(groups) > _MAX_LINES:
        stages = dict.fromkeys(name.split("/")[0] for name in groups)
        groups = {s: [n for n in rows[-1]["modules"] if n.split("/")[0] == s] for s in stages}
    lines = [
        Series(
            name,
            [
                (row["step"], float(np.mean([_known(row["modules"][m][measure]) for m in members])))
                for row in rows
            ],
        )
        for name, members in groups.items()
    ]
    if measure == "saturation":
        return lines, Axis(percent, low=0.0)
    return lines, Axis(number, low=0.0, high=1.0)


class _Tile(NamedTuple):
    """A picture, the text in its place, and its caption."""

    source: str
    alt: str
    caption: str


class _ModuleMasks(NamedTuple):
    """The masks of a module, and the values that their lowest and highest colors stand for."""

    name: str
    size: str
    low: str
    high: str
    masks: list[_Tile]


def overlay_section(
    split: str, images: np.ndarray, labels: Sequence[str], seen: Observation
) -> Markup:
    """Overlays of the masks over some images.

    Args:
        split: split of the images.
        images: uint8 [n, H, W, 3].
        labels: names of their classes.
        seen: statistics with the masks of these images.
    """
    originals = [
        _Tile(data_uri(thumbnail(image)), f"{split} image {i}: {label}", label)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    modules = []
    for name, masks in seen.masks.items():
        colors = color_range(masks)
        tiles = [
            _Tile(
                data_uri(overlay(image, mask, colors)),
                f"mask of {name} over {split} image {i}",
                _range(mask),
            )
            for i, (image, mask) in enumerate(zip(images, masks, strict=True))
        ]
        size = f"{masks.shape[1]}x{masks.shape[2]}"
        modules.append(_ModuleMasks(name, size, f"{colors.low:.2f}", f"{colors.high:.2f}", tiles))
    return render(
        "overlays.html",
        split=split,
        smooth=images.shape[1] > 48,
        bar=data_uri(color_bar()),
        images=originals,
        modules=modules,
    )


def _range(mask: np.ndarray) -> str:
    low, high = f"{mask.min():.2f}", f"{mask.max():.2f}"
    return f"{low} all over" if low == high else f"{low} to {high}"
