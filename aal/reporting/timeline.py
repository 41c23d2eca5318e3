"""The picture of who did what when."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.reporting.curves import Floats
from aal.reporting.plots import DENSE, PAGE, STYLE, mark_breaks
from aal.reporting.units import since_begin, time_unit

# Neighbouring bars of a lane take turns in tone, so that they stay apart where no gap is between them.
TONES = {"training": ("#0072B2", "#7FB8D8"), "selection": ("#D55E00", "#E69F00"), "labelling": ("#009E73", "#80CEB9")}
SHADE = "#E4EEF6"
MOST_LANES = 12
LEAST_WIDTH = 0.004  # of a bar, as a share of the picture's


class Spans(NamedTuple):
    """Stretches of time, each of one role."""

    lane: Floats
    start: Floats
    end: Floats


@mpl.rc_context(STYLE)
def timeline(
    trainings: Spans,
    selections: Spans,
    labellings: Spans,
    annotators: int,
    breaks: Sequence[float] = (),
    waited: float | None = None,
    shares: Floats | None = None,
    virtual: bool = False,
    federated: bool = False,
) -> Figure:
    """Draws what every role did when: a lane for each server, worker and annotator, or a band if they are many.

    Args:
        trainings: of the servers, or of the clients of a federation.
        selections: of the workers.
        labellings: of the annotators.
        annotators: how many there are.
        breaks: seconds at which the run was interrupted and later resumed.
        waited: which share of their time the annotators waited, from 0 to 1.
        shares: (annotators,) the same of each annotator, by number.
        virtual: whether the time is that of a simulation.
        federated: whether clients trained.
    """
    last = max(spans.end.max(initial=1.0) for spans in (trainings, selections, labellings))
    scale, unit = time_unit(last)
    panels = (
        (
            trainings,
            "training",
            f"{'Clients' if federated else 'Servers'} (a bar: one training; the two tones only keep neighbours apart; "
            f"shaded below: some {'client' if federated else 'server'} trains)",
        ),
        (selections, "selection", f"{'Clients' if federated else 'Workers'} (a bar: one selection)"),
        (labellings, "labelling", "Annotators (a bar: one label being given)"),
    )
    share = "" if waited is None else f": they waited {100 * waited:.1f} % of their time"
    heights = [min(max(0.17 * np.unique(spans.lane).size, 0.4), 2.2) for spans, *_ in panels]
    figure = Figure(figsize=(PAGE, sum(heights) + 1.3))
    grid = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    for axes, (spans, kind, title) in zip(grid, panels, strict=True):
        if kind != "training":
            for start, end in zip(trainings.start, trainings.end, strict=True):
                axes.axvspan(start / scale, end / scale, color=SHADE, linewidth=0, zorder=0)
        if kind == "labelling":
            title += share
        if kind == "labelling" and annotators > MOST_LANES:
            _band(axes, spans, annotators, last, scale)
            title = f"Annotators (how many of {annotators:,} are labelling at once){share}"
        else:
            _lanes(axes, spans, TONES[kind], scale, last)
        if kind == "labelling" and annotators <= MOST_LANES and shares is not None:
            for row, lane in enumerate(np.unique(spans.lane).astype(int)):
                text = f"waited {100 * shares[lane]:.1f} %"
                axes.annotate(text, (1, row), (3, 0), ("axes fraction", "data"), "offset points", va="center", size=7)
        mark_breaks(axes, breaks, scale)
        axes.set_title(title, loc="left", pad=3)
        axes.set_xlim(0, last / scale)
    resumed = "; dotted: the run was interrupted here and resumed; the time between does not count" if breaks else ""
    grid[-1].set_xlabel(since_begin(unit, virtual) + resumed)
    return figure


def _lanes(axes: Axes, spans: Spans, tones: tuple[str, str], scale: float, last: float) -> None:
    """Draws a lane for each role; a bar is at least as wide as can be seen, and never wider than up to the next."""
    names = np.unique(spans.lane)
    for row, name in enumerate(names):
        mine = spans.lane == name
        order = np.argsort(spans.start[mine])
        start, end = spans.start[mine][order], spans.end[mine][order]
        room = np.append(start[1:], np.inf)
        end = np.maximum(end, np.minimum(start + LEAST_WIDTH * last, room))
        start, end = start / scale, end / scale
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
