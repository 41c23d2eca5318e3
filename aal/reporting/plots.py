"""The pictures of a run, each drawn from plain arrays."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.reporting.curves import Floats, mean_by_labels

Flags = npt.NDArray[np.bool_]

# Okabe and Ito's colours; markers repeat after another number, so that the pairs do not.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
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
}
COLUMN, PAGE = 3.5, 7.0  # inches: the width of a column and of a page
ABOVE = "outside upper center"
LEAST_WAIT = 1e-3
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


def time_unit(seconds: float) -> tuple[float, str]:
    """Returns the seconds of the unit that suits a span of time, and the unit's name."""
    if seconds < 300:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def _column(x_label: str, y_label: str, legend_rows: int = 1) -> tuple[Figure, Axes]:
    """An empty picture as wide as a column, with shares upwards, in percent."""
    figure = Figure(figsize=(COLUMN, 2.4 + 0.15 * legend_rows))
    axes = figure.add_subplot(xlabel=x_label, ylabel=f"{y_label} (%)")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    axes.grid(True)
    return figure, axes


def _accuracy(x_label: str, x: Floats, accuracy: Floats, series: Series, initial: Flags) -> tuple[Figure, Axes]:
    distinct = series.distinct()
    figure, axes = _column(x_label, "Test accuracy", legend_rows=-(-(len(distinct) + 2) // 4))
    for number, name in enumerate(distinct):
        own, colour, marker = series.where(name), COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(x[own], accuracy[own], marker, color=colour, markersize=4, label=name)
    axes.plot(x[initial], accuracy[initial], "o", markersize=9, fillstyle="none", color="0.3", label="initial labels")
    return figure, axes


def _lines(series: Series, points: int) -> list[tuple[Flags, str]]:
    """Which points each line joins, and its colour: one line a network, or one for all servers."""
    if not series.are_networks:
        return [(np.ones(points, bool), "0.6")]
    return [(series.where(name), COLOURS[n % len(COLOURS)]) for n, name in enumerate(series.distinct())]


@mpl.rc_context(STYLE)
def accuracy_by_labels(labels: Floats, accuracy: Floats, series: Series, initial: Flags) -> Figure:
    """Draws test accuracy (n,) against labels (n,), a marker for each series; `initial` marks models of no query."""
    figure, axes = _accuracy("Labels in the training set", labels, accuracy, series, initial)
    for number, (own, colour) in enumerate(_lines(series, labels.size)):
        line = mean_by_labels(labels[own], accuracy[own])
        axes.plot(*line, color=colour, linewidth=1, zorder=1.9, label="_" if number else "mean")
    label_axis(axes)
    figure.legend(loc=ABOVE, ncols=4)
    return figure


@mpl.rc_context(STYLE)
def accuracy_by_time(
    seconds: Floats, accuracy: Floats, series: Series, initial: Flags, breaks: Sequence[float] = ()
) -> Figure:
    """Draws test accuracy (n,) against the time of publication (n,) in seconds; the line is the newest model's."""
    scale, unit = time_unit(seconds.max())
    time = seconds / scale
    figure, axes = _accuracy(f"Time since the run began ({unit})", time, accuracy, series, initial)
    for number, (own, colour) in enumerate(_lines(series, seconds.size)):
        order = np.flatnonzero(own)[np.argsort(time[own], kind="stable")]
        look: dict[str, Any] = {"color": colour, "linewidth": 1, "zorder": 1.9}
        axes.step(time[order], accuracy[order], where="post", label="_" if number else "newest", **look)
    mark_breaks(axes, breaks, scale)
    axes.set_xlim(left=0)
    figure.legend(loc=ABOVE, ncols=4)
    return figure


def label_axis(axes: Axes) -> None:
    """Gives the x axis whole numbers of labels, with separators."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def mark_breaks(axes: Axes, breaks: Sequence[float], scale: float) -> None:
    """Draws a dotted line where the run was interrupted and resumed, with an entry for the legend."""
    for number, moment in enumerate(breaks):
        label = "_" if number else "interrupted, resumed"
        axes.axvline(moment / scale, color="black", linestyle=":", linewidth=1, label=label)


@mpl.rc_context(STYLE)
def waits(seconds: Floats, waited: float | None = None) -> Figure:
    """Draws which share of draws waited no longer than so many seconds, on a scale that shows ms and minutes.

    Args:
        seconds: (n,) waits.
        waited: which share of their time the annotators waited, from 0 to 1.
    """
    figure, axes = _column("Annotator wait (s)", "Draws that waited no longer", legend_rows=2)
    ordered = np.sort(seconds)
    kept = np.unique(np.linspace(0, ordered.size - 1, DENSE).round().astype(int))
    most = max(1.0, ordered[-1]) * 1.5
    # From 0 % upwards at the left edge, so that even waits that are all 0 make a line.
    x = np.concatenate([[LEAST_WAIT], np.maximum(ordered[kept], LEAST_WAIT), [most]])
    y = np.concatenate([[0], (kept + 1) / ordered.size, [1]])
    axes.plot(x, y, drawstyle="steps-post", color=COLOURS[0], linewidth=1.5, clip_on=False)
    marks = [("mean", float(seconds.mean()), "-", "0.5")]
    for percent, style, colour in ((50, "-.", COLOURS[2]), (95, "--", COLOURS[1]), (99, ":", COLOURS[5])):
        marks.append((f"p{percent}", float(np.percentile(seconds, percent)), style, colour))
    for name, value, style, colour in marks:
        short = f"{1000 * value:.3g} ms" if value >= LEAST_WAIT else "< 1 ms"
        label = f"{name}: {value:,.1f} s" if value >= 1 else f"{name}: {short}"
        axes.axvline(max(value, LEAST_WAIT), linestyle=style, color=colour, linewidth=1.2, label=label)
    axes.set(xscale="log", xlim=(LEAST_WAIT, most), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:g}" if at > LEAST_WAIT else f"≤{at:g}")
    if waited is not None:
        axes.set_title(f"Annotators waited {100 * waited:.1f} % of their time", loc="left", pad=4)
    figure.legend(loc=ABOVE, ncols=2)
    return figure


@mpl.rc_context(STYLE)
def staleness(offered: Floats, answered: Floats) -> Figure:
    """Draws the share of queries by versions behind the newest, when they were offered and when answered."""
    figure, axes = _column("Staleness (versions behind the newest model)", "Share of queries")
    groups = ((offered, "when offered", COLOURS[0], None, -0.2), (answered, "when answered", COLOURS[1], "///", 0.2))
    for behind, label, colour, hatch, shift in groups:
        if behind.size:
            at, count = np.unique(behind, return_counts=True)
            look: dict[str, Any] = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axes.bar(at + shift, count / behind.size, width=0.4, label=label, **look)
    axes.set_xlim(-0.6, max(offered.max(initial=1), answered.max(initial=1)) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.grid(False, axis="x")
    figure.legend(loc=ABOVE, ncols=2)
    return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the picture as PNG and PDF beside one another, the same bytes for the same picture."""
    with mpl.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), dpi=200, metadata={"CreationDate": None})
