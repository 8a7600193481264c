"""Curves as inline SVG. Lines differ in dashes and markers, and in colour besides."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rattn_jax.report.markup import Html, join, tag

_WIDTH, _HEIGHT = 320, 210  # of the picture, which scales with the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38  # margins around the plot
_MAX_POINTS = 400  # of a line: each then is the average of neighbours
_MAX_MARKERS = 12
_DASHES = (None, "7 4", "2 3", "9 3 2 3")
_MARKERS = ("", "circle", "square", "triangle", "diamond")

Format = Callable[[float], str]


class Series(NamedTuple):
    """A line.

    Attributes:
        name: what the legend calls it.
        points: (x, y), x ascending; what is not finite is left out.
    """

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """The vertical axis.

    Attributes:
        format: of the numbers beside it.
        log: logarithmic, as far as all values are above 0.
        low: what the axis must reach down to, or None.
        high: what it must reach up to, or None.
    """

    format: Format
    log: bool = False
    low: float | None = None
    high: float | None = None


def percent(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.6g} %"


def number(value: float) -> str:
    """A number in few characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.6g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:.3e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.6g}"


def chart(
    title: str,
    note: str,
    series: Sequence[Series],
    axis: Axis,
    *,
    across: str = "update",
    places: Sequence[float] | None = None,
) -> Html:
    """A figure with a line for each series; "" without any point.

    Args:
        title: what is shown.
        note: unit, or how to read it.
        series: the lines.
        axis: the vertical axis.
        across: what the horizontal axis counts.
        places: all values of x; None takes round numbers from 0 on.
    """
    shown = [(i, s.name, p) for i, s in enumerate(series) if (p := _finite(s.points))]
    if not shown:
        return Html("")
    xs = [x for _, _, points in shown for x, _ in points]
    ys = [y for _, _, points in shown for _, y in points]
    log = axis.log and min(ys) > 0
    x_low, x_high = (places[0], places[-1]) if places else (min(0, *xs), max(1, *xs))
    ticks = _log_ticks(min(ys), max(ys)) if log else _ticks(_low(axis, ys), _high(axis, ys))
    y_low, y_high = ticks[0], ticks[-1]
    height = _HEIGHT - _TOP - _BOTTOM

    def place_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        span, part = y_high - y_low, y - y_low
        if log:
            span, part = math.log(y_high / y_low), math.log(y / y_low)
        return _TOP + height * (1 - part / span)

    lines = join(
        _line(i, [(place_x(x), place_y(y)) for x, y in _thin(points)]) for i, _, points in shown
    )
    steps = places or [x for x in _ticks(x_low, x_high) if x <= x_high]
    frame = join(
        [
            *(_horizontal(place_y(y), axis.format(y)) for y in ticks),
            *(_vertical(place_x(x), number(x)) for x in steps),
            _label((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, across, "middle"),
        ]
    )
    last = "; ".join(f"{name} {axis.format(points[-1][1])}" for _, name, points in shown)
    drawing = tag(
        "svg",
        frame,
        lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title}. Last values: {last}",
    )
    return _figure(title, note, {i: name for i, name, _ in shown}, drawing)


def _figure(title: str, note: str, names: Mapping[int, str], drawing: Html) -> Html:
    """A drawing with its caption and a legend: the names of the lines by their numbers."""
    return tag(
        "figure",
        tag("figcaption", title, " ", tag("span", note)),
        tag("ul", *(tag("li", _swatch(i), name) for i, name in names.items()), class_="legend"),
        drawing,
        class_="chart",
    )


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _low(axis: Axis, ys: list[float]) -> float:
    return min(ys) if axis.low is None else min([axis.low, *ys])


def _high(axis: Axis, ys: list[float]) -> float:
    return max(ys) if axis.high is None else max([axis.high, *ys])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, equally far apart, from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda step: abs(span / step - 4.5))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times them where there are few, around `low` and `high`."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in factors]
    below = max((i for i, t in enumerate(ticks) if t <= low * (1 + 1e-9)), default=0)
    above = min((i for i, t in enumerate(ticks) if t >= high * (1 - 1e-9)), default=len(ticks) - 1)
    above = max(above, below + 1)
    return (ticks if above < len(ticks) else [*ticks, 2 * ticks[-1]])[below : above + 1]


def _label(x: float, y: float, content: str, anchor: str) -> Html:
    return tag("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _horizontal(y: float, content: str) -> Html:
    line = tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return join([line, _label(_LEFT - 6, y + 4, content, "end")])


def _vertical(x: float, content: str) -> Html:
    bottom = _HEIGHT - _BOTTOM
    line = tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=bottom, y2=bottom + 4, class_="grid")
    anchor = "end" if x > _WIDTH - _RIGHT - 12 else "middle"
    return join([line, _label(x + (6 if anchor == "end" else 0), bottom + 18, content, anchor)])


def _line(index: int, places: list[tuple[float, float]]) -> Html:
    path = tag(
        "polyline",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        class_=f"series c{index % 6}",
        stroke_dasharray=_DASHES[index % len(_DASHES)],
    )
    kind = _MARKERS[index % len(_MARKERS)]
    if not kind and len(places) > 1:
        return path
    every = math.ceil(len(places) / _MAX_MARKERS)
    marked = places[::-1][::every]  # the last one always
    return join([path, *(_marker(kind or "circle", index, x, y) for x, y in marked)])


def _marker(kind: str, index: int, x: float, y: float) -> Html:
    style = f"mark c{index % 6}"
    if kind == "circle":
        return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=style)
    shape = {
        "square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
        "triangle": ((0, -4), (3.6, 3), (-3.6, 3)),
        "diamond": ((0, -4.2), (4.2, 0), (0, 4.2), (-4.2, 0)),
    }[kind]
    corners = " ".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in shape)
    return tag("path", d=f"M{corners}Z", class_=style)


def _swatch(index: int) -> Html:
    """A piece of the line, for the legend."""
    kind = _MARKERS[index % len(_MARKERS)]
    line = tag(
        "line",
        x1=0,
        x2=34,
        y1=7,
        y2=7,
        class_=f"series c{index % 6}",
        stroke_dasharray=_DASHES[index % len(_DASHES)],
    )
    marker = _marker(kind, index, 17, 7) if kind else ""
    return tag("svg", line, marker, viewBox="0 0 34 14", aria_hidden="true")
