"""Pictures of labelling: how long annotators waited, and how old the models were that chose their queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from aal.reporting.curves import Floats
from aal.reporting.plots import ABOVE, COLOURS, DENSE, PAGE, STYLE, column_figure, in_percent
from aal.reporting.training_plots import draw_confusion
from aal.reporting.units import duration, since_begin, time_unit

SHORT = 1e-2  # seconds; a shorter wait is not noticed
FEW = 12  # annotators that have a bar each


@mpl.rc_context(STYLE)
def waits(seconds: Floats, shares: Floats, waited: float | None, virtual: bool = False) -> Figure:
    """Draws which share of the time each annotator waited, and how long the waits were that can be felt.

    Args:
        seconds: (n,) waits, at least one.
        shares: (annotators,) share of its time that each waited, from 0 to 1.
        waited: the same of all together.
        virtual: whether the seconds are those of a simulation.
    """
    figure = Figure(figsize=(PAGE, 2.4))
    left, right = figure.subplots(1, 2)
    _shares(left, shares, waited)
    _survival(right, seconds, virtual)
    return figure


def _shares(axes: Axes, shares: Floats, waited: float | None) -> None:
    if shares.size <= FEW:
        axes.bar(np.arange(shares.size), shares, color=COLOURS[2], width=0.7)
        axes.set_xlabel("Annotator")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.fill_between(np.arange(shares.size), np.sort(shares), step="mid", color=COLOURS[2], linewidth=0)
        axes.set_xlabel(f"{shares.size:,} annotators, in order of their waits")
    if waited is not None:
        axes.axhline(waited, color="0.2", linestyle="--", linewidth=1)
        axes.set_title(f"All together waited {100 * waited:.1f} % of their time (dashed)", loc="left", pad=4)
    axes.set_ylabel("Waited (% of the time)")
    axes.set_ylim(0, max(1.15 * shares.max(initial=0.0), 0.05))
    axes.yaxis.set_major_formatter(in_percent)
    axes.grid(True, axis="y")


def _survival(axes: Axes, seconds: Floats, virtual: bool) -> None:
    """Draws which share of the draws waited longer than so many seconds, where a wait can be felt."""
    long = np.sort(seconds[seconds >= SHORT])
    kept = np.unique(np.linspace(0, max(long.size - 1, 0), DENSE).round().astype(int))[: long.size]
    longer = (long.size - np.arange(long.size)) / seconds.size
    if long.size:
        x, y = np.concatenate([[SHORT], long[kept]]), np.concatenate([[longer[0]], longer[kept]])
        axes.step(np.append(x, long[-1]), np.append(y, 0.0), where="pre", color=COLOURS[0], linewidth=1.5)
        axes.set(xscale="log", xlim=(SHORT, max(1.2 * long[-1], 10 * SHORT)), ylim=(0, 1.15 * longer[0]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set(xticks=[], ylim=(0, 0.05))
    axes.set_title(
        f"{100 * (1 - long.size / seconds.size):.1f} % below {duration(SHORT)}; "
        f"mean {duration(float(seconds.mean()))}, longest {duration(float(seconds.max()))}",
        loc="left",
        pad=4,
    )
    axes.set_xlabel(f"Wait ({'virtual ' * virtual}s)")
    axes.set_ylabel("Draws that waited longer (%)")
    axes.yaxis.set_major_formatter(in_percent)
    axes.grid(True)


@mpl.rc_context(STYLE)
def confusions(people: Mapping[str, Floats], names: Sequence[str]) -> Figure:
    """Draws what people take for what, a panel each.

    Args:
        people: (classes, classes) images of each label (row) that got each answer (column), by a title.
        names: of the classes.
    """
    columns = min(len(people), 3 if len(names) <= FEW else 2)
    rows = -(-len(people) // columns)
    side = PAGE / columns
    figure = Figure(figsize=(PAGE, (side + 0.2) * rows))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, counts) in zip(panels.flat, people.items(), strict=False):
        draw_confusion(axes, counts, names, font_size=min(6.0, 36 * side / len(names)))
        axes.set_title(title)
    for axes in panels.flat[len(people) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("Label")
    for axes in panels[-1]:
        axes.set_xlabel("Answer")
    return figure


@mpl.rc_context(STYLE)
def staleness(offered: Floats, answered: Floats) -> Figure:
    """Draws the share of queries by versions behind the newest, when they were offered and when answered."""
    figure, axes = column_figure("Staleness (versions behind the newest model)", "Share of queries")
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
def query_pool(at: Floats, waiting: Floats, due_at: Floats, mark: Floats, virtual: bool = False) -> Figure:
    """Draws how many queries waited in S, and at how many the next selection was due.

    Args:
        at: (n,) when S grew or shrank.
        waiting: (n,) queries in it then.
        due_at: (g,) when a selection was granted.
        mark: (g,) queries at which it was due.
        virtual: whether the seconds are those of a simulation.
    """
    scale, unit = time_unit(float(at.max(initial=1.0)))
    figure = Figure(figsize=(PAGE, 2.2))
    axes = figure.subplots()
    axes.step(
        at / scale,
        waiting,
        where="post",
        color=COLOURS[0],
        linewidth=0.8,
        label="queries in S",
        rasterized=at.size > DENSE,
    )
    axes.step(due_at / scale, mark, where="post", color=COLOURS[5], linewidth=1.2, label="mark")
    axes.set(xlabel=since_begin(unit, virtual), ylabel="Queries", xlim=(0, None), ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(True)
    figure.legend(loc=ABOVE, ncols=2)
    return figure
