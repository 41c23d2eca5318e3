"""Figure 4: average time between two queries, synchronous and asynchronous, by batch size."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from aal.figures import ABOVE, COLOURS, PAGE, STYLE
from reproduction.pages import Claim, Story, table
from reproduction.plans import Run, timed
from reproduction.published import TIMED_BATCHES, seconds
from reproduction.results import Result
from reproduction.scales import Setup
from reproduction.stats import certain

MUCH, FLAT = 2.0, 1.1
KINDS = {("sync", 1): "synchronous", ("async", 1): "asynchronous, bound 1", ("async", None): "asynchronous, unbounded"}
LOOKS = dict(zip(KINDS, ((COLOURS[5], "s"), (COLOURS[0], "o"), (COLOURS[2], "^")), strict=True))
SOURCES = {"paper": "the paper's costs", "measured": "costs measured on this machine"}
RULES = f"""\
"Much faster" holds when the synchronous time is at least {MUCH:g} times the asynchronous one at every batch size,
"remains low" when the asynchronous time at the largest batch is at most {FLAT:g} times that at the smallest; the paper
names no numbers (its figure shows 5.7 to 52 times, and 1.0 times). The costs have no spread, so every run with these
settings has these times: chance has no part in it."""
NOTE = """\
**What the bound does.** The published code lets selection run one round ahead of the models (bound 1). The first two
batches are chosen with the initial model, one after the other. From then on, where labels cost nothing as in that
code, a worker waits for nearly a whole training before its next batch, and the time between two queries is that of a
training: it cannot be as short as figure 4 shows. Unbounded, it is the time of a selection alone, which is what figure
4 shows, and the last columns tell the price: the models that choose have seen fewer of the labels that are there."""
DIFFERS = """\
The label counts are the paper's at every scale, for these runs compute nothing: training, scoring and publishing are
only their costs. A query is a batch that a worker offers, and its time that between two such batches. The paper's
costs are fitted to its own figure 4: that the synchronous line agrees with it is no finding, what follows for the
asynchronous ones is."""

Times = dict[tuple[str, str, int | None, int], Result]  # costs, mode, bound, batch size


def plan(setup: Setup, measured: dict[str, float]) -> list[Run]:
    """Returns the runs; one seed, for the times do not depend on it."""
    return [
        timed(setup, costs, times, mode, bound, batch)
        for costs, times in (("paper", None), ("measured", measured))
        for mode, bound in KINDS
        for batch in TIMED_BATCHES
    ]


def tell(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs say."""
    times: Times = {
        (result.run.costs, result.run.mode, result.run.bound, result.run.batch): result for result in results
    }
    data_type = results[0].run.config["data_type"]
    return Story(
        title="Figure 4: average time between two queries",
        picture=_draw(data_type, times),
        caption="Average time between two queries by batch size; hollow: the paper's figure 4.",
        rows=[_row(data_type, result) for result in results],
        claims=[claim for costs in SOURCES for claim in _claims(costs, times)],
        rules=RULES,
        tables=[*(_table(data_type, costs, times) for costs in SOURCES), f"{NOTE}\n", _costs(results)],
        silent=(
            'What "time between two queries" is: the text gives no definition, and the code measures nothing.',
            "On which hardware, with how many epochs, and over how many queries it is averaged.",
            "What of the time is the code's own waiting (polls of 10 s, a fixed sleep of 20 s, a new process and "
            "prediction on the CPU for every query), which the constant 130 s may well be.",
        ),
        differs=DIFFERS,
    )


def _interval(result: Result) -> float:
    return float(result.summary["query_interval_s"]["mean"])


def _line(times: Times, costs: str, kind: tuple[str, int | None]) -> list[float]:
    return [_interval(times[costs, *kind, batch]) for batch in TIMED_BATCHES]


def _row(data_type: str, result: Result) -> dict[str, Any]:
    run, published = result.run, seconds(data_type, result.run.mode, result.run.batch)
    return {
        **{"run": run.name, "costs": run.costs, "mode": run.mode, "servers": run.servers},
        **{"bound": "" if run.bound is None else run.bound, "batch": run.batch, "seed": run.seed},
        "interval_s": _interval(result),
        "unseen_labels": result.unseen,
        "paper_least_s": published[0] if published else None,
        "paper_most_s": published[1] if published else None,
    }


def _claims(costs: str, times: Times) -> list[Claim]:
    sync, runs = _line(times, costs, ("sync", 1)), "one run each, without chance"
    where = f"With {SOURCES[costs]}"
    rising = all(small < large for small, large in itertools.pairwise(sync))
    told = f"{_short(sync[0])} s to {_short(sync[-1])} s"
    claims = [Claim(f"{where}: the synchronous time grows with the batch size", certain(rising), told, runs)]
    for kind, name in list(KINDS.items())[1:]:
        line = _line(times, costs, kind)
        ratios = [one / other for one, other in zip(sync, line, strict=True)]
        grown, faster = line[-1] / line[0], f"{min(ratios):,.1f} to {max(ratios):,.1f} times"
        told = f"{_short(line[0])} s to {_short(line[-1])} s, {grown:.2f} times"
        claims += [
            Claim(f"{where}: {name}, is much faster in all cases", certain(min(ratios) >= MUCH), faster, runs),
            Claim(f"{where}: {name}, remains low for large batches", certain(grown <= FLAT), told, runs),
        ]
    return claims


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _range(published: tuple[float, float] | None) -> str:
    if published is None:
        return "-"
    low, high = published
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _table(data_type: str, costs: str, times: Times) -> str:
    rows = []
    for batch in TIMED_BATCHES:
        mine = [times[costs, *kind, batch] for kind in KINDS]
        published = [_range(seconds(data_type, mode, batch)) for mode in ("sync", "async") if costs == "paper"]
        aged = [f"{result.unseen / batch:.2f}" for result in mine]
        rows.append([f"{batch:,}", *(_short(_interval(result)) for result in mine), *published, *aged])
    beside = ["paper, synchronous", "paper, asynchronous"] if costs == "paper" else []
    short = [name.removeprefix("asynchronous, ") for name in KINDS.values()]
    head = ("batch size", *short, *beside, *(f"unseen, {name}" for name in short))
    unseen = "unseen: labels that the model had not learned from when a batch was offered, in batches"
    return f"Seconds between two queries with {SOURCES[costs]}; {unseen}.\n\n{table(head, rows)}"


def _costs(results: list[Result]) -> str:
    rows = []
    for costs in SOURCES:
        settings = next(result.run.settings for result in results if result.run.costs == costs)
        values = settings.costs.model_dump()
        network = f"{', '.join(settings.models)}, width {settings.width:g}, {settings.training.epochs} epochs"
        keys = ("per_image_trained", "per_image_scored", "per_selection", "per_model_published")
        rows.append([SOURCES[costs], network, *(f"{values[key]:.3g}" for key in keys)])
    head = ("", "network", "an image and epoch", "an image scored", "a selection", "a model")
    return f"Virtual seconds that work costs:\n\n{table(head, rows)}"


@mpl.rc_context(STYLE)
def _draw(data_type: str, times: Times) -> Figure:
    figure = Figure(figsize=(PAGE, 2.8))
    places = np.arange(len(TIMED_BATCHES))
    for axes, (costs, title) in zip(figure.subplots(1, len(SOURCES)), SOURCES.items(), strict=True):
        for kind, name in KINDS.items():
            colour, marker = LOOKS[kind]
            axes.plot(places, _line(times, costs, kind), color=colour, marker=marker, markersize=4, label=name)
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
