"""The pictures of a run, each drawn from plain arrays."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.reporting.curves import Floats, mean_by_labels
from aal.reporting.fonts import quiet, set_fonts
from aal.reporting.units import since_begin, time_unit

Flags = npt.NDArray[np.bool_]
Band = tuple[Floats, Floats]

# Okabe and Ito's colours; markers repeat after another number, so that the pairs do not.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREY = "0.6"  # of what belongs to no series
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "pdf.fonttype": 42,  # publishers refuse matplotlib's own default, Type 3
    "text.parse_math": False,  # names of classes, networks and runs may hold $; axes have formatters without formulas
}
COLUMN, PAGE = 3.5, 7.0  # inches: the width of a column and of a page
ABOVE = "outside upper center"
DENSE = 2000  # points of a line, at the most


class Series(NamedTuple):
    """What each point of a curve belongs to.

    Attributes:
        names: (n,) of the points, such as `server 0` or `resnet18`.
        are_networks: whether they are networks, which have a line each.
    """

    names: Sequence[str]
    are_networks: bool

    def distinct(self) -> list[str]:
        """Returns each name once, in order."""
        return sorted(set(self.names), key=lambda name: (len(name), name))

    def where(self, name: str) -> Flags:
        """Returns which points (n,) belong to a name."""
        return np.array([own == name for own in self.names], dtype=bool)


def in_percent(share: float, _: float) -> str:
    """Labels a share on an axis, from 0 to 1, in percent."""
    return f"{100 * share:g}"


def legend_name(name: str) -> str:
    """Returns a name from outside as a label: legends leave out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def column_figure(x_label: str, y_label: str, legend_rows: int = 1) -> tuple[Figure, Axes]:
    """Returns an empty picture as wide as a column, with shares upwards, in percent."""
    figure = Figure(figsize=(COLUMN, 2.4 + 0.15 * legend_rows))
    axes = figure.add_subplot(xlabel=x_label, ylabel=f"{y_label} (%)")
    axes.yaxis.set_major_formatter(in_percent)
    axes.grid(True)
    return figure, axes


def _accuracy(x_label: str, x: Floats, accuracy: Floats, series: Series, initial: Flags) -> tuple[Figure, Axes]:
    distinct = series.distinct()
    figure, axes = column_figure(x_label, "Test accuracy", legend_rows=-(-(len(distinct) + 2) // 4))
    for number, name in enumerate(distinct):
        own, colour, marker = series.where(name), COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(x[own], accuracy[own], marker, color=colour, markersize=4, label=legend_name(name))
    axes.plot(x[initial], accuracy[initial], "o", markersize=9, fillstyle="none", color="0.3", label="initial labels")
    return figure, axes


def _lines(series: Series, points: int) -> list[tuple[Flags, str]]:
    """Which points each line joins, and its colour: one line a network, or one for all servers."""
    if not series.are_networks:
        return [(np.ones(points, bool), GREY)]
    return [(series.where(name), COLOURS[n % len(COLOURS)]) for n, name in enumerate(series.distinct())]


@mpl.rc_context(STYLE)
def accuracy_by_labels(
    labels: Floats, accuracy: Floats, series: Series, initial: Flags, band: Band | None = None
) -> Figure:
    """Draws test accuracy (n,) against labels (n,), a marker for each series.

    Args:
        labels: (n,) of the models.
        accuracy: (n,) of these.
        series: that they belong to.
        initial: (n,) whether a model is of no query.
        band: (n,) ends of the 95 % intervals; None to draw none.
    """
    figure, axes = _accuracy("Labels in the labelled pool", labels, accuracy, series, initial)
    for own, colour in _lines(series, labels.size):
        line = mean_by_labels(labels[own], accuracy[own])
        axes.plot(*line, color=colour, linewidth=1, zorder=1.9)
        if band is not None:
            low, high = (mean_by_labels(labels[own], end[own])[1] for end in band)
            axes.fill_between(line[0], low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot([], color=GREY, linewidth=1, label="mean")
    _name_band(axes, band)
    label_axis(axes)
    figure.legend(loc=ABOVE, ncols=4)
    return figure


@mpl.rc_context(STYLE)
def mean_over_targets(labels: Floats, mean: Floats, std: Floats) -> Figure:
    """Draws the mean test accuracy (n,) of several targets against labels (n,), with a band of their deviation (n,)."""
    figure, axes = column_figure("Labels in the labelled pool", "Test accuracy")
    axes.fill_between(labels, mean - std, mean + std, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(labels, mean, color=COLOURS[0], marker=MARKERS[0], markersize=3, label="mean over targets")
    axes.fill_between([], [], [], color=COLOURS[0], alpha=0.2, linewidth=0, label="± one standard deviation")
    label_axis(axes)
    figure.legend(loc=ABOVE, ncols=2)
    return figure


@mpl.rc_context(STYLE)
def accuracy_by_time(
    seconds: Floats,
    accuracy: Floats,
    series: Series,
    initial: Flags,
    breaks: Sequence[float] = (),
    virtual: bool = False,
    band: Band | None = None,
) -> Figure:
    """Draws test accuracy (n,) against the time of publication (n,) in seconds; the line is the newest model's."""
    scale, unit = time_unit(seconds.max())
    time = seconds / scale
    figure, axes = _accuracy(since_begin(unit, virtual), time, accuracy, series, initial)
    for own, colour in _lines(series, seconds.size):
        order = np.flatnonzero(own)[np.argsort(time[own], kind="stable")]
        axes.step(time[order], accuracy[order], where="post", color=colour, linewidth=1, zorder=1.9)
        if band is not None:
            low, high = (end[order] for end in band)
            axes.fill_between(time[order], low, high, step="post", color=colour, alpha=0.25, linewidth=0)
    axes.plot([], color=GREY, linewidth=1, label="newest")
    _name_band(axes, band)
    mark_breaks(axes, breaks, scale)
    axes.set_xlim(left=0)
    figure.legend(loc=ABOVE, ncols=4)
    return figure


def _name_band(axes: Axes, band: Band | None) -> None:
    if band is not None:
        axes.fill_between([], [], [], color=GREY, alpha=0.25, linewidth=0, label="95 % interval")


def label_axis(axes: Axes) -> None:
    """Gives the x axis whole numbers of labels, with separators."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def mark_breaks(axes: Axes, breaks: Sequence[float], scale: float) -> None:
    """Draws a dotted line where the run was interrupted and resumed, with an entry for the legend."""
    for number, moment in enumerate(breaks):
        label = "_" if number else "interrupted, resumed"
        axes.axvline(moment / scale, color="black", linestyle=":", linewidth=1, label=label)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the picture as PNG and PDF beside one another, the same bytes for the same picture."""
    with mpl.rc_context(STYLE), quiet():
        set_fonts(figure)
        figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), dpi=200, metadata={"CreationDate": None})
