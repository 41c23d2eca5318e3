"""Figure 4: the average time between two queries, synchronous and asynchronous, by batch size."""

from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from aal.app.experiments.aal_2021.page import TEXTS, Claim, Story, titled, words_of
from aal.app.experiments.aal_2021.plans import KINDS, TIMED_ROUNDS, Setup
from aal.app.experiments.aal_2021.published import TIMED_BATCHES, published
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import Verdict
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

MUCH, FLAT = 2.0, 1.1
FITTED = (("sync", 1), ("async", None))  # lines of the paper's figure that its costs are read off
LOOKS = dict(zip(KINDS, ((COLOURS[5], "s"), (COLOURS[0], "o"), (COLOURS[2], "^")), strict=True))
SOURCES: dict[str, str] = TEXTS["costs"]["sources"]
COSTS: dict[str, str] = TEXTS["costs"]["settings"]

Kind = tuple[str, int | None]  # mode, bound
Times = dict[Kind, list[Result]]  # by batch size


def figure4(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs about times say, one run for each costs, kind and batch size."""
    data_type = results[0].run.config["data_type"]
    words = words_of("figure4", much=MUCH, flat=FLAT, rounds=TIMED_ROUNDS)
    words["data"] = f"no images, only the counts of {data_type}"
    words["scale_differs"] = f"The measured costs are those of this scale's network on images of {setup.data_type}."
    times: dict[str, Times] = {costs: {kind: [] for kind in KINDS} for costs in SOURCES}
    for result in sorted(results, key=lambda result: result.run.batch):
        times[result.run.costs][result.run.mode, result.run.bound].append(result)
    paper: dict[str, Any] = published("figure4", data_type)
    rows = [_row(result, paper[result.run.mode][result.run.batch]) for result in results]
    claims = [claim for costs in SOURCES for claim in _claims(costs, times[costs])]
    tables = [one for costs in SOURCES for one in _tables(costs, times[costs], paper, words["longest_about"])]
    return Story(_draw(times, paper), rows, claims, [*tables, words["note"], _costs(times)], words)


def _interval(result: Result, which: str = "mean") -> float:
    return float(result.summary["query_interval_s"][which])


def _row(result: Result, paper: tuple[float, float]) -> dict[str, Any]:
    run = result.run
    return {
        **{"run": run.name, "costs": run.costs, "mode": run.mode, "servers": run.servers},
        **{"bound": "" if run.bound is None else run.bound, "batch": run.batch, "seed": run.seed},
        **{"interval_s": _interval(result), "longest_s": _interval(result, "max"), "unseen_labels": result.unseen},
        **dict(zip(("paper_least_s", "paper_most_s"), paper, strict=True)),
    }


def _claims(costs: str, times: Times) -> list[Claim]:
    lines = {kind: list(map(_interval, line)) for kind, line in times.items()}
    sync = lines["sync", 1]

    def claim(kind: Kind, text: str, holds: bool, evidence: str) -> Claim:
        given = Verdict.GIVEN if costs == "paper" and kind in FITTED else Verdict.HOLDS
        verdict = given if holds else Verdict.FAILS
        return Claim(f"With {SOURCES[costs]}: {text}", verdict, evidence, "one run each, without chance")

    rising = all(small < large for small, large in pairwise(sync))
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


def _tables(costs: str, times: Times, paper: dict[str, Any], longest_about: str) -> list[str]:
    """Returns the means, beside the paper's where its costs are used, and the longest intervals."""
    modes = {"sync": "paper, synchronous", "async": "paper, asynchronous"} if costs == "paper" else {}
    means, longest = [], []
    for batch, *mine in zip(TIMED_BATCHES, *times.values(), strict=True):
        ranges = (" to ".join(f"{end:,.0f}" for end in dict.fromkeys(paper[mode][batch])) for mode in modes)
        means.append([f"{batch:,}", *(_short(_interval(result)) for result in mine), *ranges])
        unseen = (f"{result.unseen / batch:.2f}" for result in mine)
        longest.append([f"{batch:,}", *(_short(_interval(result, "max")) for result in mine), *unseen])
    about, kinds = SOURCES[costs], [name.removeprefix("asynchronous, ") for name in KINDS.values()]
    longest_head = ("batch size", *(f"{what}, {kind}" for what in ("longest", "unseen") for kind in kinds))
    head = ("batch size", *KINDS.values(), *modes.values())
    means_about = f"Mean virtual seconds between two queries with {about}."
    return [titled(means_about, head, means), titled(longest_about.format(costs=about), longest_head, longest)]


def _costs(times: dict[str, Times]) -> str:
    rows = []
    for costs, about in SOURCES.items():
        s = times[costs]["sync", 1][0].run.settings
        network = f"{', '.join(one.name for one in s.networks)}, width {s.width:g}, {s.training.epochs} epochs"
        rows.append([about, network, *(f"{getattr(s.costs, key):.3g}" for key in COSTS)])
    return titled("Virtual seconds that work costs:", ("", "network", *COSTS.values()), rows)


@mpl.rc_context(STYLE)
def _draw(times: dict[str, Times], paper: dict[str, Any]) -> Figure:
    """Draws a panel for each source of the costs; a published value is a ring, a published range a bar through it."""
    figure = Figure(figsize=(PAGE, 3.0))
    places = np.arange(len(TIMED_BATCHES))
    for axes, (costs, title) in zip(figure.subplots(1, len(SOURCES)), SOURCES.items(), strict=True):
        for kind, name in KINDS.items():
            colour, marker = LOOKS[kind]
            line = list(map(_interval, times[costs][kind]))
            axes.plot(places, line, color=colour, marker=marker, markersize=4, label=name)
        published = (("sync", "synchronous", LOOKS["sync", 1][0]), ("async", "asynchronous", "0.3"))
        for mode, name, colour in published if costs == "paper" else ():
            low, high = np.array([paper[mode][batch] for batch in TIMED_BATCHES]).T
            look: dict[str, Any] = {"color": colour, "markersize": 8, "fillstyle": "none", "label": f"paper, {name}"}
            axes.plot(places, (low + high) / 2, "o", **look)
            axes.vlines(places, low, high, color=colour, linewidth=1)
        axes.set_xticks(places, [f"{batch:,}" for batch in TIMED_BATCHES])
        axes.set(yscale="log", xlabel="Batch size (labels)", title=title[0].upper() + title[1:])
        axes.set_ylabel("Time between two queries (virtual s)")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.08)
        axes.grid(True, axis="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc=ABOVE, ncols=3)
    return figure
