"""Figure 4: the average time between two queries, synchronous and asynchronous, by batch size."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from aal.app.experiments.aal_2021.page import Claim, Story, titled, words_of
from aal.app.experiments.aal_2021.plans import KINDS, TIMED_ROUNDS, Setup
from aal.app.experiments.aal_2021.published import TIMED_BATCHES, seconds
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import certain
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

MUCH, FLAT = 2.0, 1.1
FITTED = (("sync", 1), ("async", None))  # lines of the paper's figure that its costs are read off
LOOKS = dict(zip(KINDS, ((COLOURS[5], "s"), (COLOURS[0], "o"), (COLOURS[2], "^")), strict=True))
SOURCES = {"paper": "the paper's costs", "measured": "costs measured on this machine"}

Kind = tuple[str, int | None]  # mode, bound
Times = dict[tuple[str, Kind, int], Result]  # costs, kind, batch size


def figure4(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs about times say, one run for each costs, kind and batch size."""
    times = {(result.run.costs, (result.run.mode, result.run.bound), result.run.batch): result for result in results}
    data_type = results[0].run.config["data_type"]
    words = words_of("figure4", much=MUCH, flat=FLAT, rounds=TIMED_ROUNDS)
    words["data"] = f"no images, only the counts of {data_type}"
    words["scale_differs"] = f"The measured costs are those of this scale's network on images of {setup.data_type}."
    return Story(
        _draw(data_type, times),
        [_row(data_type, result) for result in results],
        [claim for costs in SOURCES for claim in _claims(costs, times)],
        [
            *(part for costs in SOURCES for part in (_means(data_type, costs, times), _longest(costs, times))),
            words["note"],
            _costs(results),
        ],
        words,
    )


def _interval(result: Result, which: str = "mean") -> float:
    return float(result.summary["query_interval_s"][which])


def _line(times: Times, costs: str, kind: Kind) -> list[float]:
    return [_interval(times[costs, kind, batch]) for batch in TIMED_BATCHES]


def _row(data_type: str, result: Result) -> dict[str, Any]:
    run = result.run
    published = seconds(data_type, run.mode, run.batch) or (None, None)
    return {
        **{"run": run.name, "costs": run.costs, "mode": run.mode, "servers": run.servers},
        **{"bound": "" if run.bound is None else run.bound, "batch": run.batch, "seed": run.seed},
        **{"interval_s": _interval(result), "longest_s": _interval(result, "max"), "unseen_labels": result.unseen},
        **dict(zip(("paper_least_s", "paper_most_s"), published, strict=True)),
    }


def _claims(costs: str, times: Times) -> list[Claim]:
    lines = {kind: _line(times, costs, kind) for kind in KINDS}
    sync, where, runs = lines["sync", 1], f"With {SOURCES[costs]}", "one run each, without chance"

    def claim(kind: Kind, text: str, holds: bool, evidence: str) -> Claim:
        return Claim(f"{where}: {text}", certain(holds, given=costs == "paper" and kind in FITTED), evidence, runs)

    rising = all(small < large for small, large in itertools.pairwise(sync))
    evidence = f"{_short(sync[0])} s to {_short(sync[-1])} s"
    claims = [claim(("sync", 1), "the synchronous time grows with the batch size", rising, evidence)]
    for kind, name in list(KINDS.items())[1:]:
        mine = lines[kind]
        ratios, grown = [one / other for one, other in zip(sync, mine, strict=True)], mine[-1] / mine[0]
        faster = f"{min(ratios):,.1f} to {max(ratios):,.1f} times"
        evidence = f"{_short(mine[0])} s to {_short(mine[-1])} s, {grown:.2f} times"
        claims.append(claim(kind, f"{name}, is much faster in all cases", min(ratios) >= MUCH, faster))
        claims.append(claim(kind, f"{name}, remains low for large batches", grown <= FLAT, evidence))
    return claims


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _means(data_type: str, costs: str, times: Times) -> str:
    modes = {"sync": "paper, synchronous", "async": "paper, asynchronous"} if costs == "paper" else {}
    rows = []
    for batch in TIMED_BATCHES:
        published = [seconds(data_type, mode, batch) for mode in modes]
        cells = [" to ".join(f"{end:,.0f}" for end in dict.fromkeys(ends)) if ends else "-" for ends in published]
        rows.append([f"{batch:,}", *(_short(_interval(times[costs, kind, batch])) for kind in KINDS), *cells])
    about = f"Mean seconds between two queries with {SOURCES[costs]}."
    return titled(about, ("batch size", *KINDS.values(), *modes.values()), rows)


def _longest(costs: str, times: Times) -> str:
    rows = []
    for batch in TIMED_BATCHES:
        mine = [times[costs, kind, batch] for kind in KINDS]
        unseen = (f"{result.unseen / batch:.2f}" for result in mine)
        rows.append([f"{batch:,}", *(_short(_interval(result, "max")) for result in mine), *unseen])
    short = [name.removeprefix("asynchronous, ") for name in KINDS.values()]
    head = ("batch size", *(f"longest, {name}" for name in short), *(f"unseen, {name}" for name in short))
    about = (
        f"Longest of the intervals in seconds with {SOURCES[costs]}, and *unseen*: labels in L when a query was drawn "
        "that the model which had chosen it had not learned from, in batches, the mean."
    )
    return titled(about, head, rows)


def _costs(results: list[Result]) -> str:
    keys = ("per_image_trained", "per_image_scored", "per_selection", "per_model_published")
    rows = []
    for costs in SOURCES:
        settings = next(result.run.settings for result in results if result.run.costs == costs)
        network = f"{', '.join(settings.models)}, width {settings.width:g}, {settings.training.epochs} epochs"
        rows.append([SOURCES[costs], network, *(f"{getattr(settings.costs, key):.3g}" for key in keys)])
    head = ("", "network", "an image and epoch", "an image scored", "a selection", "a model")
    return titled("Virtual seconds that work costs:", head, rows)


@mpl.rc_context(STYLE)
def _draw(data_type: str, times: Times) -> Figure:
    """Draws a panel for each source of the costs; a published value is a ring, a published range a bar through it."""
    figure = Figure(figsize=(PAGE, 2.8))
    places = np.arange(len(TIMED_BATCHES))
    for axes, (costs, title) in zip(figure.subplots(1, len(SOURCES)), SOURCES.items(), strict=True):
        for kind, name in KINDS.items():
            colour, marker = LOOKS[kind]
            axes.plot(places, _line(times, costs, kind), color=colour, marker=marker, markersize=4, label=name)
        published = (("sync", "synchronous", LOOKS["sync", 1][0]), ("async", "asynchronous", "0.3"))
        for mode, name, colour in published if costs == "paper" else ():
            low, high = np.array([seconds(data_type, mode, batch) for batch in TIMED_BATCHES]).T
            look: dict[str, Any] = {"color": colour, "markersize": 8, "fillstyle": "none", "label": f"paper, {name}"}
            axes.plot(places, (low + high) / 2, "o", **look)
            axes.vlines(places, low, high, color=colour, linewidth=1)
        axes.set_xticks(places, [f"{batch:,}" for batch in TIMED_BATCHES])
        axes.set(yscale="log", xlabel="Batch size (labels)", title=title[0].upper() + title[1:])
        axes.set_ylabel("Time between two queries (s)")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.08)
        axes.grid(True, axis="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc=ABOVE, ncols=5)
    return figure
