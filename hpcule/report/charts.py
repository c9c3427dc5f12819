"""Small charts as inline SVG: bars with intervals and dots, stacked bars, curves over epochs, series over a factor,
lines over logarithmic axes.

Colours, fonts and line styles are the page's: the elements carry classes ("clean", "noise", "protected"), and the style
sheet of the report gives them their looks in light, in dark and on paper. All values are shares in [0, 1], except on
logarithmic axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from hpcule.victim.kinds import Kind

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 52, 22, 32
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

BAR_SHARE = 0.56
"""Width of a bar, as a share of the room that each one has."""
MOST_WIDE_LABELS = 3
"""Bars that there is room for in which to name each on one line."""
LINE = 13
CHARACTER = 6.5
"""Width of a character of an axis, about."""
SLANTED_ROOM = 40
"""Added below an axis whose names are too long to stand side by side."""


@dataclass(frozen=True)
class Bar:
    """One bar: its class in the style sheet, its label, its height, its interval, and the single values behind it."""

    kind: str
    label: str
    value: float
    interval: Sequence[float] | None
    dots: Sequence[float]


@dataclass(frozen=True)
class Stack:
    """One bar of parts: each with its class in the style sheet and its share of the whole, the lowest first."""

    label: str
    parts: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Curve:
    """One line of (epoch, value) points; a `mean` is drawn thick."""

    kind: Kind
    points: Sequence[tuple[float, float]]
    mean: bool = False


@dataclass(frozen=True)
class Series:
    """One line over a factor's values, with an interval at each; None where there is no value."""

    kind: str
    label: str
    values: Sequence[float | None]
    intervals: Sequence[Sequence[float] | None]


@dataclass(frozen=True)
class ChartMark:
    """A value above 0 with its interval; an open end of the interval is None."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LogLine:
    """Marks of one kind, joined by a line, or a curve without marks; the label stands at its end."""

    label: str
    style: int
    """0, 1, 2, ...: colour and dashes in the style sheet."""
    marks: Sequence[ChartMark]
    curve: bool = False


def bar_chart(title: str, description: str, bars: Sequence[Bar], chance: float) -> str:
    """Bars on a scale from 0 to 100 %, with a line at chance level; returns an `svg` element."""
    top = _frame(title, description, chance)
    room = PLOT_WIDTH / len(bars)
    for index, bar in enumerate(bars):
        _draw_bar(top, bar, LEFT + room * (index + 0.5), room * BAR_SHARE)
        lines = [bar.label] if len(bars) <= MOST_WIDE_LABELS else _halves(bar.label)
        for number, line in enumerate(lines):
            y = HEIGHT - BOTTOM + LINE * (number + 1)
            add_text(top, "label", LEFT + room * (index + 0.5), y, line, anchor="middle")
    return tostring(top, encoding="unicode")


def line_chart(title: str, description: str, curves: Sequence[Curve], chance: float | None) -> str:
    """Curves over epochs on a scale from 0 to 100 %, thick ones on top; returns an `svg` element."""
    top = _frame(title, description, chance)
    epochs = [epoch for curve in curves for epoch, _ in curve.points]
    first, last = min(epochs), max(epochs)

    def across(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return LEFT + PLOT_WIDTH * share

    for tick in ticks(last):
        if tick >= first:
            add_text(top, "tick", across(tick), HEIGHT - BOTTOM + 16, str(tick), anchor="middle")
    add_text(top, "tick", WIDTH - RIGHT + 16, HEIGHT - BOTTOM + 16, "epoch")
    for curve in sorted(curves, key=lambda curve: curve.mean):
        style = f"curve {curve.kind}{' mean' if curve.mean else ''}"
        points = [(across(epoch), height(value)) for epoch, value in curve.points]
        if len(points) == 1:
            SubElement(top, "circle", {"class": style, "cx": at(points[0][0]), "cy": at(points[0][1]), "r": "3"})
        else:
            path = " ".join(f"{at(x)},{at(y)}" for x, y in points)
            SubElement(top, "polyline", {"class": style, "points": path})
    return tostring(top, encoding="unicode")


def stacked_chart(title: str, description: str, columns: Sequence[Stack]) -> str:
    """Bars cut into parts that add up to the whole, on a scale from 0 to 100 %; returns an `svg` element."""
    top = _frame(title, description, None)
    room = PLOT_WIDTH / len(columns)
    for index, column in enumerate(columns):
        centre, bottom = LEFT + room * (index + 0.5), 0.0
        for kind, share in column.parts:
            group = SubElement(top, "g")
            SubElement(group, "title").text = f"{column.label}, {kind}: {100 * share:.1f}%"
            width = room * BAR_SHARE
            box = {"x": centre - width / 2, "y": height(bottom + share), "width": width, "height": PLOT_HEIGHT * share}
            SubElement(group, "rect", {"class": f"bar {kind}", **{name: at(value) for name, value in box.items()}})
            bottom += share
        add_text(top, "label", centre, HEIGHT - BOTTOM + 16, column.label, anchor="middle")
    return tostring(top, encoding="unicode")


def series_chart(
    title: str, description: str, axis: Sequence[str], series: Sequence[Series], chance: float | None
) -> str:
    """Series over a factor's values, evenly spaced, on a scale from 0 to 100 %; returns an `svg` element."""
    top = _frame(title, description, chance)
    room = PLOT_WIDTH / len(axis)
    slanted = max(map(len, axis)) * CHARACTER > room
    if slanted:
        top.set("viewBox", f"0 0 {WIDTH} {HEIGHT + SLANTED_ROOM}")
    for index, name in enumerate(axis):
        x, y = LEFT + room * (index + 0.5), HEIGHT - BOTTOM + 16
        add_text(top, "tick", x, y, name, anchor="end" if slanted else "middle")
        if slanted:
            top[-1].set("transform", f"rotate(-40 {at(x)} {at(y)})")
    for number, line in enumerate(series):
        # Side by side by a few points, so that intervals do not hide each other.
        shift = 5 * (number - (len(series) - 1) / 2)
        _draw_series(top, line, [LEFT + room * (index + 0.5) + shift for index in range(len(axis))])
    return tostring(top, encoding="unicode")


def log_chart(title: str, description: str, x_label: str, lines: Sequence[LogLine]) -> str:
    """Lines over two logarithmic axes; returns an `svg` element. There must be a mark."""
    marks = [mark for line in lines for mark in line.marks]
    across = _log_scale([mark.x for mark in marks], LEFT, LEFT + PLOT_WIDTH)
    values = [value for mark in marks for value in (mark.y, mark.low or mark.y, mark.high or mark.y)]
    upwards = _log_scale(values, TOP + PLOT_HEIGHT, TOP)
    top = root(title, description)
    for value in _log_ticks([mark.x for mark in marks]):
        add_text(top, "tick", across(value), HEIGHT - BOTTOM + 16, f"{value:.3g}", anchor="middle")
    add_text(top, "tick", WIDTH - RIGHT, HEIGHT - 2, x_label, anchor="end")
    for value in _log_ticks(values):
        add_line(top, "grid", LEFT, upwards(value), WIDTH - RIGHT, upwards(value))
        add_text(top, "tick", LEFT - 7, upwards(value) + 4, f"{value:.3g}", anchor="end")
    for line in lines:
        last = line.marks[-1]
        add_text(top, "tick", across(last.x) + 7, upwards(last.y) + 4, line.label)
        group = SubElement(top, "g")
        SubElement(group, "title").text = f"{line.label}: " + ", ".join(f"{m.y:.4g} at {m.x:g}" for m in line.marks)
        path = " ".join(f"{at(across(mark.x))},{at(upwards(mark.y))}" for mark in line.marks)
        kind = f"line-{line.style % 5}"
        SubElement(group, "polyline", {"class": f"curve {'fit' if line.curve else 'mean'} {kind}", "points": path})
        for mark in () if line.curve else line.marks:
            x = across(mark.x)
            ends = (mark.low or mark.y, mark.high or mark.y)
            add_line(group, f"curve {kind}", x, upwards(ends[0]), x, upwards(ends[1]))
            SubElement(group, "circle", {"class": f"dot {kind}", "cx": at(x), "cy": at(upwards(mark.y)), "r": "3"})
    return tostring(top, encoding="unicode")


def _draw_series(parent: Element, line: Series, places: Sequence[float]) -> None:
    group = SubElement(parent, "g")
    drawn = [(x, value) for x, value in zip(places, line.values, strict=True) if value is not None]
    SubElement(group, "title").text = f"{line.label}: {', '.join(f'{100 * value:.1f}%' for _, value in drawn)}"
    path = " ".join(f"{at(x)},{at(height(value))}" for x, value in drawn)
    SubElement(group, "polyline", {"class": f"curve mean {line.kind}", "points": path})
    for x, value, interval in zip(places, line.values, line.intervals, strict=True):
        if interval is not None:
            add_line(group, f"curve {line.kind}", x, height(interval[0]), x, height(interval[1]))
        if value is not None:
            style = {"class": f"dot {line.kind}", "cx": at(x), "cy": at(height(value)), "r": "3"}
            SubElement(group, "circle", style)


def ticks(last: float) -> list[int]:
    """Whole numbers of a round step up to `last`, at most six of them."""
    step = next(step for power in range(12) for step in (10**power, 2 * 10**power, 5 * 10**power) if last <= 6 * step)
    return list(range(step, int(last) + 1, step))


def height(share: float) -> float:
    """Vertical position of a share: the bottom of the plot for 0, its top for 1."""
    return TOP + PLOT_HEIGHT * (1 - share)


def root(title: str, description: str) -> Element:
    """An empty chart with its name and description for screen readers."""
    top = Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "class": "chart"})
    SubElement(top, "title").text = title
    SubElement(top, "desc").text = description
    return top


def _frame(title: str, description: str, chance: float | None) -> Element:
    """The chart without its data: name and description for screen readers, scale, grid and chance line."""
    top = root(title, description)
    for share in (0, 0.25, 0.5, 0.75, 1):
        add_line(top, "axis" if share == 0 else "grid", LEFT, height(share), WIDTH - RIGHT, height(share))
        add_text(
            top, "tick", LEFT - 7, height(share) + 4, f"{100 * share:.0f}{'%' if share == 1 else ''}", anchor="end"
        )
    if chance is not None:
        add_line(top, "chance", LEFT, height(chance), WIDTH - RIGHT, height(chance))
        # Two lines of text, kept above the labels of the horizontal axis.
        label_height = min(height(chance), height(0) - 12)
        add_text(top, "chance-label", WIDTH - RIGHT + 6, label_height - 2, "chance")
        add_text(top, "chance-label", WIDTH - RIGHT + 6, label_height + 11, f"{100 * chance:.1f}%")
    return top


def _draw_bar(parent: Element, bar: Bar, centre: float, width: float) -> None:
    group = SubElement(parent, "g")
    span = f" ({100 * bar.interval[0]:.1f}% to {100 * bar.interval[1]:.1f}%)" if bar.interval else ""
    SubElement(group, "title").text = f"{bar.label}: {100 * bar.value:.1f}%{span}"
    box = {"x": centre - width / 2, "y": height(bar.value), "width": width, "height": PLOT_HEIGHT * bar.value}
    SubElement(group, "rect", {"class": f"bar {bar.kind}", **{name: at(value) for name, value in box.items()}})
    if bar.interval:
        low, high = (height(bound) for bound in bar.interval)
        add_line(group, "whisker", centre, low, centre, high)
        for end in (low, high):
            add_line(group, "whisker", centre - 5, end, centre + 5, end)
    for index, value in enumerate(bar.dots):
        # A column right of the whisker, spread a little so that equal values stay apart.
        x = centre + width * (0.16 + 0.24 * index / max(1, len(bar.dots) - 1))
        SubElement(group, "circle", {"class": f"dot {bar.kind}", "cx": at(x), "cy": at(height(value)), "r": "3"})
    top = min(height(value) for value in (bar.value, *bar.dots, *(bar.interval or ())))
    add_text(group, "value", centre, top - 7, f"{100 * bar.value:.1f}", anchor="middle")


def _halves(label: str) -> list[str]:
    """A label on two lines of about the same length; one word stays whole."""
    words = label.split()
    cuts = range(1, len(words))
    if not cuts:
        return [label]
    cut = min(cuts, key=lambda cut: max(len(" ".join(words[:cut])), len(" ".join(words[cut:]))))
    return [" ".join(words[:cut]), " ".join(words[cut:])]


def add_line(parent: Element, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
    """Draw a straight line."""
    SubElement(parent, "line", {"class": style, "x1": at(x1), "y1": at(y1), "x2": at(x2), "y2": at(y2)})


def add_text(parent: Element, style: str, x: float, y: float, text: str, anchor: str = "start") -> None:
    """Write a text."""
    SubElement(parent, "text", {"class": style, "x": at(x), "y": at(y), "text-anchor": anchor}).text = text


def at(value: float) -> str:
    """A coordinate as SVG text, with two decimals."""
    return f"{value:.2f}"


@dataclass(frozen=True)
class _LogScale:
    first: float
    last: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.first == self.last:
            return (self.start + self.end) / 2
        share = math.log(value / self.first) / math.log(self.last / self.first)
        return self.start + (self.end - self.start) * share


def _log_scale(values: Sequence[float], start: float, end: float) -> _LogScale:
    return _LogScale(min(values), max(values), start, end)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten and, over less than two decades, 2 and 5 times them, within the values' range."""
    low, high = min(values), max(values)
    factors = (1, 2, 5) if high < 100 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= value <= high] or [low, high]
