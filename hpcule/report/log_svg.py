"""Charts with logarithmic axes as inline SVG, in the style of svg.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement, tostring

from hpcule.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    TOP,
    WIDTH,
    add_line,
    add_text,
    at,
    root,
)

Span = tuple[float, float]


@dataclass(frozen=True)
class Mark:
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
    marks: Sequence[Mark]
    curve: bool = False


def log_chart(title: str, description: str, x_label: str, lines: Sequence[LogLine]) -> str:
    """Lines over two logarithmic axes; returns an `svg` element. There must be a mark."""
    marks = [mark for line in lines for mark in line.marks]
    across = _scale([mark.x for mark in marks], LEFT, LEFT + PLOT_WIDTH)
    values = [value for mark in marks for value in (mark.y, mark.low or mark.y, mark.high or mark.y)]
    upwards = _scale(values, TOP + PLOT_HEIGHT, TOP)
    top = root(title, description)
    for value in _ticks([mark.x for mark in marks]):
        add_text(top, "tick", across(value), HEIGHT - BOTTOM + 16, f"{value:.3g}", anchor="middle")
    add_text(top, "tick", WIDTH - RIGHT, HEIGHT - 2, x_label, anchor="end")
    for value in _ticks(values):
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


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.first == self.last:
            return (self.start + self.end) / 2
        share = math.log(value / self.first) / math.log(self.last / self.first)
        return self.start + (self.end - self.start) * share


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    return _Scale(min(values), max(values), start, end)


def _ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten and, over less than two decades, 2 and 5 times them, within the values' range."""
    low, high = min(values), max(values)
    factors = (1, 2, 5) if high < 100 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= value <= high] or [low, high]
