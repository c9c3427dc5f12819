"""Figures for papers, drawn with matplotlib: sizes, colours, fonts, and files that are the same bytes every time.

A figure is as wide as one or two columns of a paper, has no title, and keeps its text as text: fonts are embedded as
TrueType in PDF, and named in SVG. The colours are those of Okabe and Ito, "Color universal design" (2008), which people
with any kind of colour vision tell from each other; markers differ too, for print in grey.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from hpcule.config.errors import UsageError
from hpcule.store.files import private_directory, write_atomically

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FigureFormat = Literal["pdf", "svg", "png"]
FIGURE_FORMATS: tuple[FigureFormat, ...] = get_args(FigureFormat)

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9
"""Widths of figures, in inches."""
LABELLED = 2.2
"""Height of a plot with its axis labels, in inches."""
MOST_PANELS_ABREAST = 3
LEGEND_HANDLE, LEGEND_CHARACTER = 0.35, 0.049
"""Room in inches that the mark of a legend's entry takes, and each character, about."""
DOTS_PER_INCH = 300

COLOURS = {
    "clean": "#0072B2",
    "noise": "#E69F00",
    "protected": "#D55E00",
    "part": "#009E73",
    "matched": "#CC79A7",
    "spectrum": "#999999",
    "untrained": "#56B4E9",
}
MARKERS = {
    "clean": "o",
    "noise": "s",
    "protected": "D",
    "part": "^",
    "matched": "v",
    "spectrum": "X",
    "untrained": "P",
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999999")
SHAPES = ("o", "s", "^", "v", "P", "X", "<", ">")

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "hpcule",
    "figure.constrained_layout.use": True,
}
UNDATED = {
    "pdf": {"CreationDate": None, "Creator": "hpcule", "Producer": None},
    "svg": {"Date": None, "Creator": "hpcule"},
    "png": {"Software": None},
}


def require_matplotlib() -> None:
    """Check that figures can be drawn, before anything that takes time.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError('--figures needs matplotlib: pip install "hpcule[figures]"') from None


@dataclass(frozen=True)
class PaperFigure:
    """A figure that can be drawn: the name of its file, its width and height in inches, and the function that draws."""

    name: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]


def write_figures(figures: Sequence[PaperFigure], folder: Path, file_format: FigureFormat) -> list[Path]:
    """Write figures, readable by their owner alone, and return their paths; older files of the same names are replaced.

    Args:
        figures: what to draw.
        folder: where the files go; it is created if it does not exist.
        file_format: of all files.

    Raises:
        UsageError: matplotlib is not installed.
        StoreError: a file cannot be written.
    """
    require_matplotlib()
    from matplotlib import style
    from matplotlib.figure import Figure

    private_directory(folder)
    written = []
    for figure in figures:
        content = io.BytesIO()
        with style.context(["default", STYLE]):
            canvas = Figure(figsize=figure.size)
            figure.draw(canvas)
            canvas.savefig(content, format=file_format, dpi=DOTS_PER_INCH, metadata=UNDATED[file_format])
        written.append(folder / f"{figure.name}.{file_format}")
        write_atomically(written[-1], content.getvalue())
    return written


def panel_size(panels: int) -> tuple[float, float]:
    """Width and height in inches of a figure with this number of panels."""
    rows = math.ceil(panels / MOST_PANELS_ABREAST)
    return ONE_COLUMN if panels == 1 else TWO_COLUMNS, 0.4 + LABELLED * rows


def panels_of(figure: Figure, labels: Sequence[str], x_label: str, y_label: str) -> list[Axes]:
    """A plot for each label, in rows of at most three; several panels carry their labels, and share both scales."""
    columns = min(len(labels), MOST_PANELS_ABREAST)
    rows = math.ceil(len(labels) / columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    plots = list(grid.flat)
    for unused in plots[len(labels) :]:
        unused.remove()
    for number, (plot, label) in enumerate(zip(plots, labels, strict=False)):
        if len(labels) > 1:
            plot.set_title(label, fontsize=6.5, loc="left")
        if number % columns == 0:
            plot.set_ylabel(y_label)
        if number + columns >= len(labels):
            plot.set_xlabel(x_label)
            plot.tick_params(labelbottom=True)
        plot.grid(axis="y")
        plot.set_axisbelow(True)
    return plots[: len(labels)]


def legend_above(figure: Figure, plots: Sequence[Axes]) -> None:
    """One legend for all plots, above them, with each label once and "chance" last."""
    found: dict[str, Artist] = {}
    for plot in plots:
        for handle, label in zip(*plot.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = sorted(found, key=lambda label: label == "chance")
    room = LEGEND_HANDLE + LEGEND_CHARACTER * max(map(len, labels))
    columns = max(1, min(len(labels), int(figure.get_figwidth() / room)))
    figure.legend([found[label] for label in labels], labels, loc="outside upper center", ncols=columns)


def name_axis(plot: Axes, names: Sequence[str], room: float) -> None:
    """Names at 0, 1, 2, ... of the horizontal axis; slanted if they are longer than the `room` inches of the axis."""
    plot.set_xticks(range(len(names)), names)
    plot.set_xlim(-0.5, len(names) - 0.5)
    if sum(map(len, names)) * LEGEND_CHARACTER > room:
        plot.tick_params(axis="x", labelrotation=40)
        for label in plot.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")


def logarithmic(plot: Axes, values: Sequence[float]) -> None:
    """A logarithmic vertical axis whose ticks are plain numbers: 1, 2 and 5 times powers of ten, or even steps."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    wide = max(values) >= 10 * min(values)
    plot.set_yscale("log")
    plot.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(5))
    plot.yaxis.set_minor_locator(NullLocator())
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
