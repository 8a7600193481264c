"""How far the network's probabilities can be trusted: reliability diagram, calibration error."""

import numpy as np
from markupsafe import Markup

from rattn_jax.report.charts import Axis, Series, chart, charts, number, percent
from rattn_jax.report.rendering import render
from rattn_jax.report.scores import NUM_BINS, Calibration, percents


def calibration_section(split: str, calibration: Calibration) -> Markup:
    """The calibration error, the reliability diagram, and the share of images in each bin."""
    count, right, confidence = (np.asarray(values, np.float64) for values in calibration)
    if not count.sum():
        return Markup("")
    used = np.flatnonzero(count)
    mean, accuracy = confidence[used] / count[used], right[used] / count[used]
    middles, shares = (used + 0.5) / NUM_BINS, count[used] / count.sum()
    ticks = [i / 5 for i in range(6)]
    figures = [
        chart(
            "Reliability",
            "accuracy by probability",
            [
                Series("probability = accuracy", [(0.0, 0.0), (1.0, 1.0)]),
                Series(split, _points(mean, accuracy)),
            ],
            Axis(number, low=0.0, high=1.0),
            across="probability",
            places=ticks,
        ),
        chart(
            "Probabilities",
            "share of the images",
            [Series(split, _points(middles, shares))],
            Axis(percent, low=0.0),
            across="probability",
            places=ticks,
        ),
    ]
    return render(
        "calibration.html",
        summary=percents(
            [calibration.error(), *(v.sum() / count.sum() for v in (confidence, right))]
        ),
        num_bins=NUM_BINS,
        charts=charts(figures),
        bins=[
            (f"{i / NUM_BINS:.3f} to {(i + 1) / NUM_BINS:.3f}", f"{int(count[i]):,}", *values)
            for i, *values in zip(used, percents(mean), percents(accuracy), strict=True)
        ],
    )


def _points(xs: np.ndarray, ys: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(xs.tolist(), ys.tolist(), strict=True))
