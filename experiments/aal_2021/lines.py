"""The picture of figure 4: lines of times between two queries, beside the paper's."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.published import TIMED_BATCHES, seconds
from aal.app.experiments.aal_2021.results import Result
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

KINDS = {("sync", 1): "synchronous", ("async", 1): "asynchronous, bound 1", ("async", None): "asynchronous, unbounded"}
LOOKS = dict(zip(KINDS, ((COLOURS[5], "s"), (COLOURS[0], "o"), (COLOURS[2], "^")), strict=True))
SOURCES = {"paper": "the paper's costs", "measured": "costs measured on this machine"}

Kind = tuple[str, int | None]  # mode, bound
Times = dict[tuple[str, str, int | None, int], Result]  # costs, mode, bound, batch size


def mean_s(result: Result) -> float:
    """Returns the mean time between two queries."""
    return float(result.summary["query_interval_s"]["mean"])


def longest_s(result: Result) -> float:
    """Returns the longest time between two queries."""
    return float(result.summary["query_interval_s"]["max"])


def line(times: Times, costs: str, kind: Kind) -> list[float]:
    """Returns the mean times by batch size."""
    return [mean_s(times[costs, *kind, batch]) for batch in TIMED_BATCHES]


@mpl.rc_context(STYLE)
def draw(data_type: str, times: Times) -> Figure:
    """Draws a panel for each source of the costs."""
    figure = Figure(figsize=(PAGE, 2.8))
    places = np.arange(len(TIMED_BATCHES))
    for axes, (costs, title) in zip(figure.subplots(1, len(SOURCES)), SOURCES.items(), strict=True):
        for kind, name in KINDS.items():
            colour, marker = LOOKS[kind]
            axes.plot(places, line(times, costs, kind), color=colour, marker=marker, markersize=4, label=name)
        if costs == "paper":
            for mode, colour in (("sync", LOOKS["sync", 1][0]), ("async", "0.3")):
                _published(axes, data_type, mode, colour)
        axes.set_xticks(places, [f"{batch:,}" for batch in TIMED_BATCHES])
        axes.set(yscale="log", xlabel="Batch size (labels)", title=title[0].upper() + title[1:])
        axes.set_ylabel("Time between two queries (s)")
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.margins(x=0.08)
        axes.grid(True, axis="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc=ABOVE, ncols=5)
    return figure


def _published(axes: mpl.axes.Axes, data_type: str, mode: str, colour: str) -> None:
    """Draws a published value as a ring, a published range as a bar through it."""
    low, high = np.array([seconds(data_type, mode, batch) for batch in TIMED_BATCHES]).T
    places, name = np.arange(len(TIMED_BATCHES)), {"sync": "synchronous", "async": "asynchronous"}[mode]
    middle, label = (low + high) / 2, f"paper, {name}"
    axes.plot(places, middle, "o", color=colour, markersize=8, fillstyle="none", label=label)
    axes.vlines(places, low, high, color=colour, linewidth=1)
