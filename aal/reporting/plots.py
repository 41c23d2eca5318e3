"""The pictures of a run, each drawn from plain arrays."""

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Okabe and Ito's colours; markers repeat after another number, so that the pairs do not.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
# Neighbouring bars of a lane take turns in tone, so that they stay apart where no gap is between them.
TONES = {"training": ("#0072B2", "#7FB8D8"), "selection": ("#D55E00", "#E69F00"), "labelling": ("#009E73", "#80CEB9")}
SHADE = "#E4EEF6"
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
MOST_LANES, DENSE = 12, 2000


class Spans(NamedTuple):
    """Stretches of time, each of one role."""

    lane: Floats
    start: Floats
    end: Floats


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 300:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def _column(x_label: str, y_label: str, legend_rows: int = 1) -> tuple[Figure, Axes]:
    """An empty picture as wide as a column, with shares upwards, told in percent."""
    figure = Figure(figsize=(COLUMN, 2.4 + 0.15 * legend_rows))
    axes = figure.add_subplot(xlabel=x_label, ylabel=f"{y_label} (%)")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    axes.grid(True)
    return figure, axes


def _accuracy(x_label: str, x: Floats, accuracy: Floats, server: Floats, initial: Flags) -> tuple[Figure, Axes]:
    servers = np.unique(server)
    figure, axes = _column(x_label, "Test accuracy", legend_rows=-(-(servers.size + 2) // 4))
    for number, name in enumerate(servers):
        mine, colour, marker = server == name, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(x[mine], accuracy[mine], marker, color=colour, markersize=4, label=f"server {name:.0f}")
    axes.plot(x[initial], accuracy[initial], "o", markersize=9, fillstyle="none", color="0.3", label="initial labels")
    return figure, axes


@mpl.rc_context(STYLE)
def accuracy_by_labels(labels: Floats, accuracy: Floats, server: Floats, initial: Flags) -> Figure:
    """Draws test accuracy against labels, a marker a server; `initial` says which models bought no label."""
    figure, axes = _accuracy("Labels in the training set", labels, accuracy, server, initial)
    at, which = np.unique(labels, return_inverse=True)
    mean = np.bincount(which, accuracy) / np.bincount(which)
    axes.plot(at, mean, color="0.6", linewidth=1, zorder=1.9, label="mean")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc=ABOVE, ncols=4)
    return figure


@mpl.rc_context(STYLE)
def accuracy_by_time(seconds: Floats, accuracy: Floats, server: Floats, initial: Flags) -> Figure:
    """Draws test accuracy against the time of publication; the line is the newest model's."""
    scale, unit = _time_unit(seconds.max())
    time = seconds / scale
    figure, axes = _accuracy(f"Time since the run began ({unit})", time, accuracy, server, initial)
    order = np.argsort(time, kind="stable")
    axes.step(time[order], accuracy[order], where="post", color="0.6", linewidth=1, zorder=1.9, label="newest")
    axes.set_xlim(left=0)
    figure.legend(loc=ABOVE, ncols=4)
    return figure


@mpl.rc_context(STYLE)
def waits(seconds: Floats) -> Figure:
    """Draws the share of draws that waited no longer than so many seconds, on a scale that shows ms and minutes."""
    figure, axes = _column("Annotator wait (s)", "Draws that waited no longer")
    ordered = np.sort(seconds)
    kept = np.unique(np.linspace(0, ordered.size - 1, DENSE).round().astype(int))
    most = max(1.0, ordered[-1]) * 1.5
    # From 0 % upwards at the left edge, so that even waits that are all 0 make a line.
    x = np.concatenate([[LEAST_WAIT], np.maximum(ordered[kept], LEAST_WAIT), [most]])
    y = np.concatenate([[0], (kept + 1) / ordered.size, [1]])
    axes.plot(x, y, drawstyle="steps-post", color=COLOURS[0], linewidth=1.5, clip_on=False)
    for percent, style, colour in ((50, "-.", COLOURS[2]), (95, "--", COLOURS[1]), (99, ":", COLOURS[5])):
        value = float(np.percentile(seconds, percent))
        short = f"{1000 * value:.3g} ms" if value >= LEAST_WAIT else "< 1 ms"
        label = f"p{percent}: {value:,.1f} s" if value >= 1 else f"p{percent}: {short}"
        axes.axvline(max(value, LEAST_WAIT), linestyle=style, color=colour, linewidth=1.2, label=label)
    axes.set(xscale="log", xlim=(LEAST_WAIT, most), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda at, _: f"{at:g}" if at > LEAST_WAIT else f"≤{at:g}")
    figure.legend(loc=ABOVE, ncols=3)
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


@mpl.rc_context(STYLE)
def timeline(trainings: Spans, selections: Spans, labellings: Spans, annotators: int) -> Figure:
    """Draws what every role did when: a lane a server, a worker and an annotator, or a band if they are many."""
    last = max(spans.end.max(initial=1.0) for spans in (trainings, selections, labellings))
    scale, unit = _time_unit(last)
    panels = (
        (trainings, "training", "Servers (a bar: one training; shaded below: some server trains)"),
        (selections, "selection", "Workers (a bar: one batch being chosen)"),
        (labellings, "labelling", "Annotators (a bar: one label being given)"),
    )
    heights = [min(max(0.17 * np.unique(spans.lane).size, 0.4), 2.2) for spans, *_ in panels]
    figure = Figure(figsize=(PAGE, sum(heights) + 1.3))
    grid = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    for axes, (spans, kind, title) in zip(grid, panels, strict=True):
        if kind != "training":
            for start, end in zip(trainings.start, trainings.end, strict=True):
                axes.axvspan(start / scale, end / scale, color=SHADE, linewidth=0, zorder=0)
        if kind == "labelling" and annotators > MOST_LANES:
            _band(axes, spans, annotators, last, scale)
            title = f"Annotators (how many of {annotators:,} are labelling at once)"
        else:
            _lanes(axes, spans, TONES[kind], scale)
        axes.set_title(title, loc="left", pad=3)
        axes.set_xlim(0, last / scale)
    grid[-1].set_xlabel(f"Time since the run began ({unit})")
    return figure


def _lanes(axes: Axes, spans: Spans, tones: tuple[str, str], scale: float) -> None:
    names = np.unique(spans.lane)
    for row, name in enumerate(names):
        mine = spans.lane == name
        order = np.argsort(spans.start[mine])
        start, end = spans.start[mine][order] / scale, spans.end[mine][order] / scale
        bars = axes.broken_barh(list(zip(start, end - start, strict=True)), (row - 0.4, 0.8), facecolors=tones)
        # An edge of its own colour keeps the shortest bar visible.
        bars.set(edgecolors=tones, linewidth=0.3, rasterized=spans.lane.size > DENSE)
    step = max(1, -(-names.size // MOST_LANES))
    axes.set_yticks(range(0, names.size, step), [f"{name:.0f}" for name in names[::step]])
    axes.set_ylim(max(names.size, 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _band(axes: Axes, spans: Spans, annotators: int, last: float, scale: float) -> None:
    times = np.linspace(0, last, DENSE)
    busy = np.searchsorted(np.sort(spans.start), times, "right") - np.searchsorted(np.sort(spans.end), times, "right")
    axes.fill_between(times / scale, busy, step="post", color=TONES["labelling"][0], linewidth=0)
    axes.axhline(annotators, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, annotators * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def mark_breaks(figure: Figure, seconds: Iterable[float]) -> None:
    """Draws a dotted line through every time axis where the run was broken off and resumed."""
    for moment in seconds:
        for axes in figure.axes:
            axes.axvline(moment, color="black", linestyle=":", linewidth=1)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the picture as PNG and PDF beside one another, the same bytes for the same picture."""
    with mpl.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), dpi=200, metadata={"CreationDate": None})
