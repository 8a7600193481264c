"""Charts as inline SVG. Lines differ in dashes and markers as well as in color.

A chart of positive values has a switch to a logarithmic axis. `templates/hover.js` shows the values
under the pointer.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from rattn_jax.report.rendering import render

_WIDTH, _HEIGHT = 320, 210  # of the picture, which is scaled with the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38  # margins around the plot
_MAX_POINTS = 400  # per line; more are averaged in groups
_MAX_MARKERS = 12
_DASHES = (None, "7 4", "2 3", "9 3 2 3")
_MARKERS = ("", "circle", "square", "triangle", "diamond")
_SHAPES = {
    "square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
    "triangle": ((0, -4), (3.6, 3), (-3.6, 3)),
    "diamond": ((0, -4.2), (4.2, 0), (0, 4.2), (-4.2, 0)),
}

Format = Callable[[float], str]


class Series(NamedTuple):
    """A line.

    Attributes:
        name: its name in the legend.
        points: (x, y) in ascending order of x; non-finite ones are skipped.
    """

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """The vertical axis.

    Attributes:
        format: format of its numbers.
        log: whether it is logarithmic at first, if all values are positive.
        low: value that the axis must include at the bottom, or None; not if it is logarithmic.
        high: value that it must include at the top, or None; with it there is no logarithmic axis.
    """

    format: Format
    log: bool = False
    low: float | None = None
    high: float | None = None


def percent(value: float) -> str:
    """A fraction as percent."""
    return f"{100 * value:.6g} %"


def number(value: float) -> str:
    """A short number."""
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
    epoch: float | None = None,
) -> Markup:
    """A chart with a line for each series; empty without points.

    Args:
        title: title of the chart.
        note: unit or explanation.
        series: the lines.
        axis: the vertical axis.
        across: name of the horizontal axis.
        places: values of x with a tick; None takes round numbers.
        epoch: length of an epoch on the horizontal axis, if it is to be given.
    """
    finite = [(i, s.name, p) for i, s in enumerate(series) if (p := _finite(s.points))]
    if not finite:
        return Markup("")
    lines = [(i, name, _thin(points)) for i, name, points in finite]
    ys = [y for _, _, points in lines for _, y in points]
    has_log = axis.high is None and max(ys) > 0
    kinds = (False, True) if has_log else (False,)
    return render(
        "chart.html",
        title=title,
        note=note,
        across=across,
        epoch=epoch,
        has_log=has_log,
        log_first=has_log and axis.log and min(ys) > 0,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
        plots=[_plot(lines, axis, across, places, epoch, log=log) for log in kinds],
        last="; ".join(f"{name} {axis.format(points[-1][1])}" for _, name, points in finite),
    )


class _Plot(NamedTuple):
    """A chart with one kind of vertical axis."""

    kind: str
    rows: list[str]
    columns: list[str]
    labels: "list[_Label]"
    lines: "list[_Line]"


def _plot(
    lines: Sequence[tuple[int, str, Sequence[tuple[float, float]]]],
    axis: Axis,
    across: str,
    places: Sequence[float] | None,
    epoch: float | None,
    *,
    log: bool,
) -> _Plot:
    xs = [x for _, _, points in lines for x, _ in points]
    ys = [y for _, _, points in lines for _, y in points]
    x_low, x_high = (places[0], places[-1]) if places else (min(0, *xs), max(1, *xs))
    if log:
        ticks = _log_ticks(min(y for y in ys if y > 0), max(ys))
    else:
        ticks = _ticks(_low(axis, ys), _high(axis, ys))
    y_low, y_high = ticks[0], ticks[-1]
    height = _HEIGHT - _TOP - _BOTTOM

    def place_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        span, part = y_high - y_low, y - y_low
        if log:  # what is not positive lies at the bottom
            span, part = math.log(y_high / y_low), math.log(max(y, y_low) / y_low)
        return _TOP + height * (1 - part / span)

    steps = places or [x for x in _ticks(x_low, x_high) if x <= x_high]
    rows = [(place_y(y), axis.format(y)) for y in ticks]
    columns = [(place_x(x), number(x)) for x in steps]
    below = f"{across} (an epoch has {epoch:.4g})" if epoch else across
    return _Plot(
        "log" if log else "linear",
        [f"{y:.1f}" for y, _ in rows],
        [f"{x:.1f}" for x, _ in columns],
        _labels(rows, columns, below),
        [
            _line(i, name, points, [(place_x(x), place_y(y)) for x, y in points], axis)
            for i, name, points in lines
        ],
    )


def charts(figures: Sequence[Markup]) -> Markup:
    """Several charts side by side."""
    return render("charts.html", charts=figures)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
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
    """Round, equidistant numbers from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda step: abs(span / step - 4.5))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    digits = 12 - math.floor(math.log10(step))
    return [round(i * step, digits) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around `low` and `high`; if there are few, also 2 and 5 times them."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in factors]
    below = max((i for i, t in enumerate(ticks) if t <= low * (1 + 1e-9)), default=0)
    above = min((i for i, t in enumerate(ticks) if t >= high * (1 - 1e-9)), default=len(ticks) - 1)
    above = max(above, below + 1)
    return (ticks if above < len(ticks) else [*ticks, 2 * ticks[-1]])[below : above + 1]


class _Label(NamedTuple):
    x: str
    y: str
    anchor: str
    text: str


def _label(x: float, y: float, anchor: str, text: str) -> _Label:
    return _Label(f"{x:.1f}", f"{y:.1f}", anchor, text)


def _labels(
    rows: Sequence[tuple[float, str]], columns: Sequence[tuple[float, str]], across: str
) -> list[_Label]:
    """The numbers at the axes, and the name of the horizontal axis."""
    labels = [_label(_LEFT - 6, y + 4, "end", text) for y, text in rows]
    for x, text in columns:
        at_border = x > _WIDTH - _RIGHT - 12
        place, anchor = (x + 6, "end") if at_border else (x, "middle")
        labels.append(_label(place, _HEIGHT - _BOTTOM + 18, anchor, text))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [*labels, _label(middle, _HEIGHT - 4, "middle", across)]


class _Marker(NamedTuple):
    """A circle, or another shape by its path."""

    x: str
    y: str
    path: str | None


class _Line(NamedTuple):
    """A line as it is drawn.

    Attributes:
        number: its number in the chart, which has its color, dashes and markers.
        name: its name in the legend.
        dashes: of its stroke.
        points: its points in the picture.
        xs: their places on the horizontal axis, as text, separated by spaces.
        ys: their values, as text, separated by bars.
        markers: markers at some points.
        swatch: marker of its piece in the legend.
    """

    number: int
    name: str
    dashes: str | None
    points: str
    xs: str
    ys: str
    markers: list[_Marker]
    swatch: _Marker | None


def _line(
    order: int,
    name: str,
    points: Sequence[tuple[float, float]],
    places: Sequence[tuple[float, float]],
    axis: Axis,
) -> _Line:
    kind = _MARKERS[order % len(_MARKERS)]
    every = math.ceil(len(places) / _MAX_MARKERS)
    marked = places[::-1][::every] if kind or len(places) == 1 else []  # the last one always
    return _Line(
        number=order,
        name=name,
        dashes=_DASHES[order % len(_DASHES)],
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        xs=" ".join(f"{x:.7g}" for x, _ in points),
        ys="|".join(axis.format(y) for _, y in points),
        markers=[_marker(kind or "circle", x, y) for x, y in marked],
        swatch=_marker(kind, 17, 7) if kind else None,
    )


def _marker(kind: str, x: float, y: float) -> _Marker:
    path = None
    if kind in _SHAPES:
        corners = " ".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in _SHAPES[kind])
        path = f"M{corners}Z"
    return _Marker(f"{x:.1f}", f"{y:.1f}", path)
