"""Charts as inline SVG: no script, no network, colours from the page's style sheet.

All are 360 units wide, which is a phone's width, and grow with their column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from recsys.evaluation.report.wording import number, percent, percent_tick, tick

WIDTH = 360
ROW = 26
"""Height of a row of a dot plot."""

Format = Callable[[float], str]


@dataclass(frozen=True)
class Dot:
    """A value with its interval, in a row of a dot plot."""

    row: str
    value: float
    interval: Sequence[float] | None = None
    series: int = 0
    pale: bool = False
    """Drawn weakly: too few users to say."""


@dataclass(frozen=True)
class Line:
    """Points joined by a line, with a whisker each where there is an interval."""

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[Sequence[float] | None] = ()
    labels: Sequence[str] = ()
    """A text at each point."""
    series: int = 0
    joined: bool = True
    """False leaves the line out: the points alone."""
    pale: bool = False
    """Drawn weakly, behind what matters more."""


@dataclass(frozen=True)
class Scale:
    """One axis of parallel coordinates."""

    title: str
    low: str
    """What stands at its lower end."""
    high: str


@dataclass(frozen=True)
class Path:
    """One thing across parallel coordinates."""

    name: str
    places: Sequence[float | None]
    """From 0 to 1 on each axis; None where it has no place there."""
    series: int = 0
    pale: bool = False


@dataclass(frozen=True)
class Axis:
    """What stands at an axis."""

    title: str = ""
    form: Format = number
    """Writes a value, in the hint at a point."""
    tick: Format = tick
    """Writes the round numbers at the axis."""


SHARES = Axis(form=percent, tick=percent_tick)
"""An axis of shares."""


@dataclass(frozen=True)
class Axes:
    """Both axes of a line plot."""

    x: Axis
    y: Axis
    diagonal: bool = False
    """Draws x = y, on axes of one range."""
    zero: bool = False
    """Draws y = 0."""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers between two bounds.

    >>> ticks(0, 0.034)
    [0.0, 0.01, 0.02, 0.03]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * at, 12) for at in range(first, last + 1)]


def figure(title: str, svg: str, legend: Sequence[str] = (), note: str = "") -> str:
    """A chart with its title above it and, where it has several series, their names."""
    keys = "".join(
        f'<span><i class="key s{at}"></i>{escape(name)}</span>' for at, name in enumerate(legend)
    )
    parts = [f"<figcaption>{escape(title)}</figcaption>"]
    parts += [f'<p class="legend">{keys}</p>'] if keys else []
    parts += [svg]
    parts += [f'<p class="note">{escape(note)}</p>'] if note else []
    return f"<figure>{''.join(parts)}</figure>"


def dot_plot(dots: Sequence[Dot], *, label: str) -> str:
    """Rows of values with their 95 % intervals on one axis from 0."""
    rows = list(dict.fromkeys(dot.row for dot in dots))
    reached = [0.0, *(end for dot in dots for end in (dot.value, *(dot.interval or ())))]
    bottom, top = min(reached), max(reached)
    if bottom == top:
        top = 1.0
    left, right, height = 132, WIDTH - 14, ROW * len(rows) + 26

    def x(value: float) -> float:
        return left + (value - bottom) / (top - bottom) * (right - left)

    parts = []
    for value in ticks(bottom, top):
        parts.append(_line(x(value), 2, x(value), height - 22, "grid"))
        parts.append(_text(x(value), height - 8, tick(value), anchor="middle"))
    for at, row in enumerate(rows):
        middle = ROW * at + ROW / 2
        parts.append(_text(left - 8, middle + 4, row, anchor="end", longest=22))
        of_row = [dot for dot in dots if dot.row == row]
        for place, dot in enumerate(of_row):
            y = middle + (place - (len(of_row) - 1) / 2) * 8
            kind = f"s{dot.series} pale" if dot.pale else f"s{dot.series}"
            if dot.interval:
                parts.append(_line(x(dot.interval[0]), y, x(dot.interval[1]), y, kind))
            hint = f"{row}: {number(dot.value)}{_between(dot.interval, number)}"
            parts.append(_circle(x(dot.value), y, kind, hint))
    return _svg(height, label, parts)


def line_plot(lines: Sequence[Line], axes: Axes, *, label: str, height: int = 230) -> str:
    """Lines over a numeric axis."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    ys += [bound for line in lines for pair in line.intervals if pair for bound in pair]
    if axes.diagonal:
        xs = ys = [0.0, *xs, *ys]
    if axes.zero:
        ys = [0.0, *ys]
    frame = _Frame(_span(xs), _span(ys), height)
    parts = frame.grid(axes)
    if axes.diagonal:
        (low, high), _ = frame.x_range, frame.y_range
        parts.append(_line(*frame.at(low, low), *frame.at(high, high), "diagonal"))
    if axes.zero:
        (low, high) = frame.x_range
        parts.append(_line(*frame.at(low, 0), *frame.at(high, 0), "zero"))
    for line in lines:
        parts += _drawn(line, frame, axes)
    return _svg(height, label, parts)


def bar_groups(
    rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, label: str
) -> str:
    """Shares of several things in rows of bars, one colour each."""
    bar, gap = 11, 12
    block = bar * len(names) + gap
    left, right, height = 88, WIDTH - 46, block * len(rows) + 4
    top = max((value for _, values in rows for value in values), default=0) or 1.0
    parts = []
    for at, (row, values) in enumerate(rows):
        begin = block * at + gap / 2
        parts.append(_text(left - 8, begin + bar * len(names) / 2 + 4, row, anchor="end"))
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            y, width = begin + bar * place, value / top * (right - left)
            hint = f"{row}, {name}: {percent(value)}"
            parts.append(
                f'<rect class="s{place}" x="{left}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                f'height="{bar - 2}"><title>{escape(hint)}</title></rect>'
            )
            parts.append(_text(left + width + 5, y + bar - 2.5, percent(value), small=True))
    return _svg(height, label, parts)


def parallel_plot(scales: Sequence[Scale], paths: Sequence[Path], *, label: str) -> str:
    """Parallel coordinates: an axis a row, and a path down them for each thing."""
    row, left, right = 60, 24, WIDTH - 24
    parts = []
    for path in paths:
        kind = f"s{path.series} pale" if path.pale else f"s{path.series}"
        places = [
            (left + place * (right - left), row * at + 28.0)
            for at, place in enumerate(path.places)
            if place is not None
        ]
        parts.append(_polyline(places, kind))
        parts += [_circle(x, y, kind, path.name) for x, y in places]
    for at, scale in enumerate(scales):
        y = row * at + 28
        parts.append(_line(left, y, right, y, "grid"))
        parts.append(_text(WIDTH / 2, y - 7, scale.title, anchor="middle", strong=True))
        parts.append(_text(left, y + 15, scale.low, longest=24))
        parts.append(_text(right, y + 15, scale.high, anchor="end", longest=24))
    return _svg(row * len(scales) - 8, label, parts)


class _Frame:
    """The drawing area of a line plot."""

    def __init__(
        self, x_range: tuple[float, float], y_range: tuple[float, float], height: int
    ) -> None:
        self.x_range, self.y_range, self.height = x_range, y_range, height
        self.left, self.right, self.top, self.bottom = 58, WIDTH - 14, 10, height - 40

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies."""
        (x_low, x_high), (y_low, y_high) = self.x_range, self.y_range
        across = self.left + (x - x_low) / (x_high - x_low) * (self.right - self.left)
        return across, self.bottom - (y - y_low) / (y_high - y_low) * (self.bottom - self.top)

    def grid(self, axes: Axes) -> list[str]:
        """Grid lines, numbers and the names of the axes."""
        parts = []
        for value in ticks(*self.x_range):
            across, _ = self.at(value, 0)
            parts.append(_line(across, self.top, across, self.bottom, "grid"))
            parts.append(_text(across, self.bottom + 15, axes.x.tick(value), anchor="middle"))
        for value in ticks(*self.y_range):
            _, down = self.at(0, value)
            parts.append(_line(self.left, down, self.right, down, "grid"))
            parts.append(_text(self.left - 6, down + 4, axes.y.tick(value), anchor="end"))
        middle = (self.left + self.right) / 2
        parts.append(_text(middle, self.height - 6, axes.x.title, anchor="middle", strong=True))
        turned = f"rotate(-90 10 {(self.top + self.bottom) / 2:.1f})"
        centre = (self.top + self.bottom) / 2
        parts.append(
            _text(10, centre, axes.y.title, anchor="middle", strong=True, transform=turned)
        )
        return parts


def _drawn(line: Line, frame: _Frame, axes: Axes) -> list[str]:
    places = [frame.at(*point) for point in line.points]
    kind = f"s{line.series} pale" if line.pale else f"s{line.series}"
    parts = [_polyline(places, kind)] if line.joined else []
    for at, (x, y) in enumerate(places):
        horizontal, vertical = line.points[at]
        interval = line.intervals[at] if line.intervals else None
        if interval:
            low, high = (frame.at(horizontal, bound)[1] for bound in interval)
            parts.append(_line(x, low, x, high, f"s{line.series} thin"))
        hint = f"{line.name}: {axes.x.form(horizontal)}, {axes.y.form(vertical)}"
        hint += _between(interval, axes.y.form)
        parts.append(_circle(x, y, kind, hint))
    return parts + _labels(line.labels, places)


def _labels(labels: Sequence[str], places: Sequence[tuple[float, float]]) -> list[str]:
    """The texts at points, left out where one would lie on another."""
    taken: list[tuple[float, float]] = []
    parts = []
    for label, (x, y) in zip(labels, places, strict=False):
        side, shift = ("end", -5) if x > 2 * WIDTH / 3 else ("start", 5)
        if any(abs(x - a) < 30 and abs(y - b) < 11 for a, b in taken):
            continue
        taken.append((x, y))
        parts.append(_text(x + shift, y - 6, label, anchor=side, small=True))
    return parts


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    margin = (high - low) * 0.06
    return low - margin, high + margin


def _between(interval: Sequence[float] | None, form: Format) -> str:
    return f" ({form(interval[0])} to {form(interval[1])})" if interval else ""


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}/>'


def _polyline(places: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{kind}" points="{path}"/>'


def _circle(x: float, y: float, kind: str, hint: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="3.6"'
    return f'<circle class="{kind}" {place}><title>{escape(hint)}</title></circle>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    small: bool = False,
    strong: bool = False,
    longest: int = 60,
    transform: str = "",
) -> str:
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    kind = "small" if small else "strong" if strong else "plain"
    turn = f' transform="{transform}"' if transform else ""
    hint = f"<title>{escape(text)}</title>" if shown != text else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}{turn}>{escape(shown)}{hint}</text>'
