"""Costs beside their work: a table, and charts.

markdown({"batch": {"1": {"work": 1.0, "ms": 2.0, "peak_mb": 300.0}, ...}})
"""

import math
from collections.abc import Mapping

from experiments.growth.measure import Costs
from rattn_jax.report.charts import Axis, Series, chart, charts, number
from rattn_jax.report.rendering import render

Found = Mapping[str, Mapping[str, Costs]]

# Between two sizes a cost may grow by this much more than the work: timings of a shared machine.
_TOLERANCE = 1.15
_TITLES = {
    "batch": "Train step, by batch",
    "depth": "Train step, by depth",
    "side": "Train step, by side of the images in pixels",
    "images": "First batch, by images in the folder",
    "devices": "Train step of one batch, by devices of one CPU",
}


def faster_than_work(before: Costs, after: Costs) -> bool:
    """Whether the time grew faster than the work did."""
    return after["ms"] / before["ms"] > _TOLERANCE * after["work"] / before["work"]


def markdown(found: Found) -> str:
    """A table for each axis."""
    parts = []
    for axis, sizes in found.items():
        lines = [
            f"{_TITLES[axis]}:",
            "",
            f"| {axis} | work | start, s | ms | ms to work | peak memory, MB | |",
            "|---|---|---|---|---|---|---|",
        ]
        rows = list(sizes.items())
        for i, (size, costs) in enumerate(rows):
            is_faster = i > 0 and faster_than_work(rows[i - 1][1], costs)
            start = f"{costs['start_s']:.1f}" if "start_s" in costs else ""
            relative = _relative(costs, rows[0][1])
            lines.append(
                f"| {int(size):,} | {number(costs['work'])} | {start} | {costs['ms']:,.1f} | "
                f"{relative:.2f} | {costs['peak_mb']:,.0f} | "
                f"{'faster than its work' if is_faster else ''} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def page(found: Found) -> str:
    """Charts of time beside work, for a browser."""
    shown = []
    for axis, sizes in found.items():
        places = [math.log2(int(size)) for size in sizes]
        first = next(iter(sizes.values()))
        lines = [
            Series(name, list(zip(places, values, strict=True)))
            for name, values in (
                ("time", [costs["ms"] / first["ms"] for costs in sizes.values()]),
                ("work", [costs["work"] / first["work"] for costs in sizes.values()]),
                ("memory", [costs["peak_mb"] / first["peak_mb"] for costs in sizes.values()]),
            )
        ]
        across = f"log2 of {axis}"
        shown.append(
            chart(_TITLES[axis], "to the first", lines, Axis(number, log=True), across=across)
        )
    text = "Time, work and peak memory, each to that of the first size."
    return render("figure.html", title="How costs grow", text=text, charts=charts(shown))


def _relative(costs: Costs, first: Costs) -> float:
    """How much more time a unit of work takes than at the first size."""
    return costs["ms"] / costs["work"] / (first["ms"] / first["work"])
