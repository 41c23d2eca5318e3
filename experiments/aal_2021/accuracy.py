"""Figures 2 and 3 and table 1: what the runs about accuracy say, beside what the paper says."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.app.experiments.aal_2021.page import TEXTS, Claim, Story, count, mean_and_deviation, titled, words_of
from aal.app.experiments.aal_2021.plans import Setup
from aal.app.experiments.aal_2021.published import BATCHES, METHODS, SERVERS, TITLES, accuracy, mean_accuracy
from aal.app.experiments.aal_2021.results import Result, accuracies, of_kind, points
from aal.app.experiments.aal_2021.statistics import Numbers, Verdict, all_of, interval, judge
from aal.reporting.curves import aubc
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE
from aal.reporting.tables import markdown_table

MARGIN, CLOSE = 0.01, 0.02
WHOLE, EQUAL, AREA = "over the whole curve", "at equal label counts", "as AUBC"
LOOKS: dict[Any, tuple[str, str]] = {
    **dict(zip(METHODS, zip((COLOURS[6], *COLOURS[:3], COLOURS[5]), "sovD^", strict=True), strict=True)),
    **dict(zip(BATCHES, zip(COLOURS, "osD", strict=False), strict=True)),
    **dict(zip(SERVERS, zip(COLOURS, "os^", strict=False), strict=True)),
}
ERROR_BARS = {"elinewidth": 0.8, "capsize": 2}


def _panels(number: int, height: float, sharex: bool = False) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(max(PAGE / 2, PAGE * number / 3), height))
    return figure, list(figure.subplots(1, number, sharey=True, sharex=sharex, squeeze=False)[0])


def _in_percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(lambda share, _: f"{100 * share:g}")


def _areas(grid: list[int], curves: Numbers) -> Numbers:
    """Returns the areas under accuracies (seeds, trainings) at label counts."""
    return np.array([aubc(np.array(grid, float), curve) for curve in curves])


def _deviation(values: Numbers) -> Any:
    """Standard deviation over seeds, the first axis; None for one seed."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else None


# ------------------------------------------------------------------ figure 2: accuracy against labels, one server

Curves = dict[str, Numbers]  # method -> accuracies (seeds, trainings)
Published = dict[str, list[float | None]]  # method -> the paper's accuracies (trainings)


def figure2(setup: Setup, results: list[Result]) -> Story:
    """Returns what the asynchronous runs of one server say of strategies against random sampling and AAL."""
    panels = [
        (
            batch,
            grid,
            {method: accuracies(results, grid, batch=batch, method=method) for method in setup.methods},
            {
                method: [accuracy(setup.data_type, batch, method, n) for n in range(len(grid))]
                for method in setup.methods
            },
        )
        for batch, grid in {result.run.batch: result.run.grid for result in results}.items()
    ]
    words = words_of("figure2", margin=100 * MARGIN)
    words["caption"] += "; dotted: the paper." if setup.scale == "paper" else "."
    return Story(
        _draw_curves(setup, panels),
        points(results, lambda run, number: accuracy(setup.data_type, run.batch, run.method, number)),
        [claim for panel in panels for claim in _claims_of_areas(*panel)],
        [table for panel in panels for table in _curves(setup, *panel)],
        words,
    )


def _claims_of_areas(batch: int, grid: list[int], curves: Curves, _: Published) -> list[Claim]:
    areas = {method: _areas(grid, curve) for method, curve in curves.items()}
    where, seeds = f"Batch size {batch:,}", count(len(next(iter(areas.values()))), "seed")
    others = [method for method in areas if method != "random" and "random" in areas]
    gains = {TITLES[method]: interval(areas[method] - areas["random"]) for method in others}
    below = Claim(
        f"{where}: random sampling is below {', '.join(gains) or 'the others'}",
        all_of(judge(gain, above=0) for gain in gains.values()),
        "; ".join(f"{title} {gain}" for title, gain in gains.items()) or "-",
        seeds,
    )
    baselines = [method for method in areas if method != "AAL"]
    comparable = f"{where}: AAL is comparable to the best baseline"
    if not baselines or "AAL" not in areas:
        return [below, Claim(comparable, Verdict.UNTRIED, "-", seeds)]
    best = max(baselines, key=lambda method: float(areas[method].mean()))
    lead = interval(areas["AAL"] - areas[best])
    text = f"{comparable} of {', '.join(TITLES[method] for method in baselines)}"
    return [below, Claim(text, judge(lead, above=-MARGIN), f"AAL - {TITLES[best]}: {lead}", seeds)]


def _curves(setup: Setup, batch: int, grid: list[int], curves: Curves, published: Published) -> list[str]:
    """Returns the tables of a panel: the points of its curves, and the areas under them."""
    areas = {method: _areas(grid, curve) for method, curve in curves.items()}
    rows = [
        [f"{labels:,}", *(mean_and_deviation(curves[method][:, n], published[method][n]) for method in curves)]
        for n, labels in enumerate(grid)
    ]
    area_rows = []
    for method, area in areas.items():
        known = np.array(published[method], float)
        paper = None if np.isnan(known).any() else aubc(np.array(grid, float), known)
        gain = interval(area - areas["random"]) if "random" in areas and method != "random" else "-"
        lead = interval(areas["AAL"] - area) if "AAL" in areas and method != "AAL" else "-"
        area_rows.append([TITLES[method], mean_and_deviation(area, paper), gain, lead])
    about = (
        f"{_batch_here(setup, batch)}: test accuracy in %, mean ± standard deviation over seeds; in brackets the "
        "paper's at the same training of its own run."
    )
    return [
        titled(about, ("labels", *(TITLES[method] for method in curves)), rows),
        markdown_table(("", "AUBC in %", "minus random, points", "AAL minus it, points"), area_rows),
    ]


def _batch_here(setup: Setup, batch: int) -> str:
    size = setup.size.labels(batch)
    return f"Batch size {batch:,}" + (f" ({size:,} here)" if size != batch else "")


@mpl.rc_context(STYLE)
def _draw_curves(setup: Setup, panels: list[tuple[int, list[int], Curves, Published]]) -> Figure:
    figure, row = _panels(len(panels), 2.9)
    for axes, (batch, grid, curves, published) in zip(row, panels, strict=True):
        for method, values in curves.items():
            colour, marker = LOOKS[method]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2, **ERROR_BARS}
            axes.errorbar(grid, values.mean(axis=0), _deviation(values), label=TITLES[method], **look)
            if setup.scale == "paper":
                axes.plot(grid, np.array(published[method], float), ":", color=colour, linewidth=1)
        axes.set(title=_batch_here(setup, batch), xlabel="Labels in the training set")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        _in_percent(axes.yaxis)
        axes.grid(True)
    row[0].set_ylabel("Test accuracy (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=5)
    return figure


# ------------------------------------------------------------------ figure 3: synchronous against asynchronous


def figure3(setup: Setup, results: list[Result]) -> Story:
    """Returns what pairs of runs of one strategy say of synchronous against asynchronous accuracy."""
    grids = {result.run.batch: result.run.grid for result in results}
    kinds = list(itertools.product(setup.methods, setup.batches))
    curves = {  # strategy, batch size -> synchronous and asynchronous accuracy (2, seeds, trainings)
        (method, batch): np.array(
            [accuracies(results, grids[batch], method=method, batch=batch, mode=mode) for mode in ("sync", "async")]
        )
        for method, batch in kinds
    }
    later = {kind: pair[:, :, 1:] for kind, pair in curves.items()}  # without the initial models, which are the same
    point_rows, area_rows = [], []
    for (method, batch), pair in curves.items():
        named = [TITLES[method], f"{batch:,}"]
        for number, labels in list(enumerate(grids[batch]))[1:]:
            point_rows.append([*named, f"{labels:,}", *_side_by_side(*pair[:, :, number])])
        area_rows.append([*named, *_side_by_side(*(_areas(grids[batch], curve) for curve in pair))])
    return Story(
        _draw_pairs(setup, later),
        points(results),
        _claims_of_pairs(setup, later),
        [
            titled(
                "Test accuracy in %, mean ± standard deviation over seeds. Batch sizes are the paper's; labels are "
                "ours.",
                ("strategy", "batch size", "labels", "synchronous", "asynchronous", "difference, points"),
                point_rows,
            ),
            titled(
                "Areas under the curves (AUBC) in %, initial models included as in figure 2; differences seed by seed.",
                ("strategy", "batch size", "AUBC, synchronous", "AUBC, asynchronous", "difference, points"),
                area_rows,
            ),
        ],
        words_of("figure3", margin=100 * MARGIN, close=100 * CLOSE),
    )


def _side_by_side(prompt: Numbers, late: Numbers) -> list[str]:
    return [mean_and_deviation(prompt), mean_and_deviation(late), str(interval(late - prompt))]


def _claims_of_pairs(setup: Setup, pairs: dict[tuple[str, int], Numbers]) -> list[Claim]:
    seeds, claims, gaps = count(setup.seeds, "seed"), [], []
    for method in setup.methods:  # asynchronous minus synchronous (seeds, all points of a strategy)
        gap = np.concatenate([pair[1] - pair[0] for (name, _), pair in pairs.items() if name == method], axis=1)
        mean = interval(gap.mean(axis=1))
        text = f"{TITLES[method]}: synchronous and asynchronous accuracy are comparable"
        verdict = judge(mean, above=-MARGIN, below=MARGIN)
        claims.append(Claim(text, verdict, f"asynchronous - synchronous: {mean}", seeds))
        gaps.append(gap)
    every = np.concatenate(gaps, axis=1)
    far = interval(np.abs(every).mean(axis=1))
    largest, alone = 100 * np.abs(every.mean(axis=0)).max(), 100 * np.abs(every).max()
    evidence = f"mean distance {far}; the largest {largest:.1f} as a mean over seeds, {alone:.1f} singly"
    together = all_of(claim.verdict for claim in claims)
    return [
        *claims,
        Claim("All strategies: they are comparable", together, "the rows above", seeds),
        Claim("The points lie close to the diagonal", judge(far, below=CLOSE), evidence, seeds),
    ]


@mpl.rc_context(STYLE)
def _draw_pairs(setup: Setup, pairs: dict[tuple[str, int], Numbers]) -> Figure:
    figure, row = _panels(len(setup.methods), 3.0, sharex=True)
    low = min(pair.min() for pair in pairs.values()) - CLOSE
    high = min(max(pair.max() for pair in pairs.values()) + CLOSE, 1.0)
    ends = np.array([low, high])
    for axes, method in zip(row, setup.methods, strict=True):
        axes.fill_between(ends, ends - CLOSE, ends + CLOSE, color="0.93", linewidth=0)
        axes.plot(ends, ends, color="0.5", linewidth=1)
        for batch in setup.batches:
            colour, marker = LOOKS[batch]
            look: dict[str, Any] = {"color": colour, "markersize": 3.5, "alpha": 0.8}
            axes.plot(*pairs[method, batch].reshape(2, -1), marker, label=f"batch size {batch:,}", **look)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=TITLES[method])
        axes.set_xlabel("Synchronous accuracy (%)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        _in_percent(axes.xaxis, axes.yaxis)
        axes.grid(True)
    row[0].set_ylabel("Asynchronous accuracy (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=3)
    return figure


# ------------------------------------------------------------------ table 1: several servers

Means = dict[tuple[str, int], Numbers]  # method, servers -> a mean accuracy (seeds,)


def table1(setup: Setup, results: list[Result]) -> Story:
    """Returns what runs with one, two and four servers say of the mean accuracy over the curve."""
    sparse, dense = (of_kind(results, servers=servers)[0].run.grid for servers in (SERVERS[0], SERVERS[-1]))
    kinds = list(itertools.product(setup.methods, SERVERS))
    curves = {kind: accuracies(results, sparse, method=kind[0], servers=kind[1]) for kind in kinds}
    runs = {kind: of_kind(results, method=kind[0], servers=kind[1]) for kind in kinds}
    whole = {kind: np.array([run.summary["mean_curve_accuracy"] for run in runs[kind]]) for kind in kinds}
    equal = {kind: curve.mean(axis=1) for kind, curve in curves.items()}
    area = {kind: _areas(sparse, curve) for kind, curve in curves.items()}
    few, many = (accuracies(results, grid, servers=SERVERS[0]).mean() for grid in (sparse, dense))
    pace = "pace_of_selections" if setup.scale == "paper" else "pace_of_trainings"
    words = words_of("table1", gained=100 * (many - few), pace=TEXTS["table1"][pace])
    return Story(
        _draw_means(setup, {WHOLE: whole, EQUAL: equal}),
        points(results),
        [*_claims_of_means(setup, WHOLE, whole), *_claims_of_means(setup, EQUAL, equal)],
        [
            *(_means(setup, kind, means) for kind, means in ((WHOLE, whole), (EQUAL, equal), (AREA, area))),
            words["note"],
            _staleness(results, words["age"]),
        ],
        words,
    )


def _claims_of_means(setup: Setup, kind: str, means: Means) -> list[Claim]:
    seeds, claims = count(setup.seeds, "seed"), []
    for method in setup.methods:
        pairs = list(itertools.pairwise(SERVERS))
        gains = {pair: interval(means[method, pair[1]] - means[method, pair[0]]) for pair in pairs}
        evidence = "; ".join(f"{more} - {fewer}: {gain}" for (fewer, more), gain in gains.items())
        verdict = all_of(judge(gain, above=0) for gain in gains.values())
        claims.append(Claim(f"{TITLES[method]}: more servers, higher mean accuracy {kind}", verdict, evidence, seeds))
    together = all_of(claim.verdict for claim in claims)
    return [*claims, Claim(f"All methods: consistently higher {kind}", together, "the rows above", seeds)]


def _means(setup: Setup, kind: str, means: Means) -> str:
    rows = []
    for method in setup.methods:
        paper = [mean_accuracy(setup.data_type, method, servers) if kind == WHOLE else None for servers in SERVERS]
        cells = (mean_and_deviation(means[method, m], beside) for m, beside in zip(SERVERS, paper, strict=True))
        rows.append([TITLES[method], *cells])
    beside = "; in brackets the paper's" if kind == WHOLE else "; the paper has none"
    about = f"Mean test accuracy {kind} in %, ± standard deviation over seeds{beside}."
    return titled(about, ("", *(count(servers, "server") for servers in SERVERS)), rows)


def _staleness(results: list[Result], about: str) -> str:
    rows = []
    for servers in SERVERS:
        mine = of_kind(results, servers=servers)
        waits = [one.summary["annotator_wait_s"]["mean"] for one in mine]
        figures = [(one.summary["trainings"], one.unseen, one.by_initial) for one in mine]
        trainings, unseen, first, waited = np.column_stack([figures, waits]).mean(axis=0)
        rows.append([str(servers), f"{trainings:.1f}", f"{unseen:,.0f}", f"{100 * first:.0f} %", f"{waited:.2g}"])
    head = ("servers", "trainings", "unseen labels", "chosen by the initial model", "annotator wait, virtual s")
    return titled(about, head, rows)


@mpl.rc_context(STYLE)
def _draw_means(setup: Setup, kinds: dict[str, Means]) -> Figure:
    figure = Figure(figsize=(PAGE, 2.7))
    row = figure.subplots(1, len(kinds), sharey=True)
    for axes, (kind, means) in zip(row, kinds.items(), strict=True):
        for place, servers in enumerate(SERVERS):
            colour, marker = LOOKS[servers]
            values = np.array([means[method, servers] for method in setup.methods]).T
            at = np.arange(len(setup.methods)) + 0.18 * (place - 1)
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.5, **ERROR_BARS}
            label = count(servers, "server")
            axes.errorbar(at, values.mean(axis=0), _deviation(values), linestyle="none", label=label, **look)
        axes.set_xticks(range(len(setup.methods)), [TITLES[method] for method in setup.methods])
        axes.set(xlim=(-0.5, len(setup.methods) - 0.5), title=f"Mean accuracy {kind}")
        _in_percent(axes.yaxis)
        axes.grid(True, axis="y")
    row[0].set_ylabel("Mean test accuracy (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=3)
    return figure
