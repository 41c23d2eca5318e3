"""Figures 2 and 3 and table 1: what the runs about accuracy say, beside what the paper says."""

from itertools import pairwise, product
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.app.experiments.aal_2021.page import Claim, Story, count, mean_and_deviation, titled, words_of
from aal.app.experiments.aal_2021.plans import Setup
from aal.app.experiments.aal_2021.published import BATCHES, METHODS, SERVERS, TITLES, accuracy, published
from aal.app.experiments.aal_2021.results import Result, accuracies, of_kind, points
from aal.app.experiments.aal_2021.statistics import Numbers, Verdict, all_of, interval, judge
from aal.reporting.curves import aubc
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE, label_axis
from aal.reporting.tables import markdown_table

MARGIN, CLOSE = 0.01, 0.02
DODGE = 0.12  # of the labels between two points, by which the outermost curves are shifted
WHOLE, EQUAL, AREA = "over the whole curve", "at equal label counts", "as AUBC"
LOOKS: dict[Any, tuple[str, str]] = {
    **dict(zip(METHODS, zip((COLOURS[6], *COLOURS[:3], COLOURS[5]), "sovD^", strict=True), strict=True)),
    **dict(zip(BATCHES, zip(COLOURS, "osD", strict=False), strict=True)),
    **dict(zip(SERVERS, zip(COLOURS, "os^", strict=False), strict=True)),
}

Curves = dict[str, Numbers]  # of each method
Pairs = dict[tuple[str, int], Numbers]  # of each strategy and batch size: accuracies (2 modes, seeds, trainings)
Means = dict[tuple[str, int], Numbers]  # of each method and number of servers: mean accuracies (seeds,)


def _panels(number: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(width, PAGE / 2), height))
    return figure, list(figure.subplots(1, number, sharey=True, squeeze=False, **shared)[0])


def _in_percent(share: float, _: float) -> str:
    return f"{100 * share:g}"


def _finished(figure: Figure, row: list[Axes], y_label: str, columns: int) -> Figure:
    row[0].set_ylabel(y_label)
    row[0].yaxis.set_major_formatter(_in_percent)  # the others share it
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=columns)
    return figure


def _mean_line(axes: Axes, x: Any, values: Numbers, key: Any, **look: Any) -> None:
    """Draws means of accuracies (seeds, n) in the look of a method or number of servers; bars are the deviation."""
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else None
    look |= dict(zip(("color", "marker"), LOOKS[key], strict=True))
    axes.errorbar(x, values.mean(axis=0), deviation, elinewidth=0.8, capsize=2, **look)


def _areas(grid: list[int], curves: Numbers) -> Numbers:
    """Returns the areas under accuracies (seeds, trainings) at label counts."""
    return np.array([aubc(np.array(grid, float), curve) for curve in curves])


@mpl.rc_context(STYLE)
def figure2(setup: Setup, results: list[Result]) -> Story:
    """Returns what the asynchronous runs of one server say of strategies against random sampling and AAL."""
    words = words_of("figure2", margin=100 * MARGIN)
    words["caption"] += "; dotted: the paper." if setup.scale == "paper" else "."
    claims, tables = list[Claim](), list[str]()
    grids = {result.run.batch: result.run.grid for result in results}
    figure, row = _panels(len(grids), PAGE * len(grids) / 3, 2.9)
    for axes, (batch, grid) in zip(row, grids.items(), strict=True):
        size = setup.size.labels(batch)
        title = f"Batch size {batch:,}" + (f" ({size:,} here)" if size != batch else "")
        curves = {method: accuracies(results, grid, batch=batch, method=method) for method in setup.methods}
        paper = {  # NaN where it has none
            method: np.array([accuracy(setup.data_type, batch, method, n) for n in range(len(grid))], float)
            for method in setup.methods
        }
        areas = {method: _areas(grid, curve) for method, curve in curves.items()}
        has_paper = not all(np.isnan(curve).all() for curve in paper.values())
        about = words["points_about"] + (f"; {words['points_beside']}." if has_paper else ".")
        claims += _claims_of_areas(f"Batch size {batch:,}", areas)
        tables += _tables(f"{title}: {about}", grid, curves, areas, paper)
        shifts = np.linspace(-DODGE, DODGE, len(curves)) * np.diff(grid).min() if len(curves) > 1 else (0.0,)
        for shift, (method, values) in zip(shifts, curves.items(), strict=True):  # so that no bar hides another
            _mean_line(axes, np.array(grid) + shift, values, method, label=TITLES[method], markersize=4, linewidth=1.2)
            if setup.scale == "paper":
                axes.plot(grid, paper[method], ":", color=LOOKS[method][0], linewidth=1)
        axes.set(title=title, xlabel="Labels in the training set")
        label_axis(axes)
        axes.grid(True)
    rows = points(results, lambda run, number: accuracy(setup.data_type, run.batch, run.method, number))
    return Story(_finished(figure, row, "Test accuracy (%)", columns=5), rows, claims, tables, words)


def _claims_of_areas(where: str, areas: Curves) -> list[Claim]:
    seeds = count(len(next(iter(areas.values()))), "seed")
    others = [method for method in areas if method != "random" and "random" in areas]
    gains = {TITLES[method]: interval(areas[method] - areas["random"]) for method in others}
    verdict = all_of(judge(gain, above=0) for gain in gains.values())
    evidence = "; ".join(f"{title} {gain}" for title, gain in gains.items()) or "-"
    below = Claim(f"{where}: random sampling is below {', '.join(gains) or 'the others'}", verdict, evidence, seeds)
    baselines = [method for method in areas if method != "AAL"]
    comparable = f"{where}: AAL is comparable to the best baseline"
    if not baselines or "AAL" not in areas:
        return [below, Claim(comparable, Verdict.UNTRIED, "-", seeds)]
    best = max(baselines, key=lambda method: float(areas[method].mean()))
    lead = interval(areas["AAL"] - areas[best])
    text = f"{comparable} of {', '.join(TITLES[method] for method in baselines)}"
    return [below, Claim(text, judge(lead, above=-MARGIN), f"AAL - {TITLES[best]}: {lead}", seeds)]


def _tables(about: str, grid: list[int], curves: Curves, areas: Curves, paper: Curves) -> list[str]:
    """Returns the points of the curves, and the areas under them."""
    points = [
        [f"{labels:,}", *(mean_and_deviation(curves[method][:, n], paper[method][n]) for method in curves)]
        for n, labels in enumerate(grid)
    ]
    rows = []
    for method, area in areas.items():
        gain = interval(area - areas["random"]) if "random" in areas and method != "random" else "-"
        lead = interval(areas["AAL"] - area) if "AAL" in areas and method != "AAL" else "-"
        [known] = _areas(grid, paper[method][np.newaxis])
        rows.append([TITLES[method], mean_and_deviation(area, known), gain, lead])
    of_areas = markdown_table(("", "AUBC in %", "minus random, points", "AAL minus it, points"), rows)
    return [titled(about, ("labels", *(TITLES[method] for method in curves)), points), of_areas]


def figure3(setup: Setup, results: list[Result]) -> Story:
    """Returns what pairs of runs of one strategy say of synchronous against asynchronous accuracy."""
    grids = {result.run.batch: result.run.grid for result in results}
    words = words_of("figure3", margin=100 * MARGIN, close=100 * CLOSE)
    later: Pairs = {}  # without the initial models, which are the same
    point_rows, area_rows = [], []
    for method, batch in product(setup.methods, setup.batches):
        grid, named = grids[batch], [TITLES[method], f"{batch:,}"]
        pair = [accuracies(results, grid, method=method, batch=batch, mode=mode) for mode in ("sync", "async")]
        later[method, batch] = np.array(pair)[:, :, 1:]
        by_labels = zip(grid[1:], later[method, batch].T, strict=True)
        point_rows += [[*named, f"{labels:,}", *_side_by_side(*both.T)] for labels, both in by_labels]
        area_rows.append([*named, *_side_by_side(*(_areas(grid, curve) for curve in pair))])
    point_head = ("strategy", "batch size", "labels", "synchronous", "asynchronous", "difference, points")
    area_head = ("strategy", "batch size", "AUBC, synchronous", "AUBC, asynchronous", "difference, points")
    tables = [titled(words["points_about"], point_head, point_rows), titled(words["areas_about"], area_head, area_rows)]
    return Story(_draw_pairs(setup, later), points(results), _claims_of_pairs(setup, later), tables, words)


def _side_by_side(prompt: Numbers, late: Numbers) -> list[str]:
    return [mean_and_deviation(prompt), mean_and_deviation(late), str(interval(late - prompt))]


def _claims_of_pairs(setup: Setup, pairs: Pairs) -> list[Claim]:
    seeds, claims, gaps = count(setup.seeds, "seed"), [], []
    for method in setup.methods:  # asynchronous minus synchronous (seeds, all points of a strategy)
        gap = np.concatenate([pairs[method, batch][1] - pairs[method, batch][0] for batch in setup.batches], axis=1)
        mean = interval(gap.mean(axis=1))
        text = f"{TITLES[method]}: synchronous and asynchronous accuracy are comparable"
        verdict = judge(mean, above=-MARGIN, below=MARGIN)
        claims.append(Claim(text, verdict, f"asynchronous - synchronous: {mean}", seeds))
        gaps.append(gap)
    every = np.concatenate(gaps, axis=1)
    far = interval(np.abs(every).mean(axis=1))
    largest, alone = 100 * np.abs(every.mean(axis=0)).max(), 100 * np.abs(every).max()
    evidence = f"mean distance {far}; the largest {largest:.1f} as a mean over seeds, {alone:.1f} singly"
    diagonal = Claim("The points lie close to the diagonal", judge(far, below=CLOSE), evidence, seeds)
    return [*_with_all(claims, "All strategies: they are comparable"), diagonal]


def _with_all(claims: list[Claim], text: str) -> list[Claim]:
    """Returns the claims, and one that is all of them at once."""
    return [*claims, Claim(text, all_of(claim.verdict for claim in claims), "the rows above", claims[0].runs)]


@mpl.rc_context(STYLE)
def _draw_pairs(setup: Setup, pairs: Pairs) -> Figure:
    figure, row = _panels(len(setup.methods), PAGE * len(setup.methods) / 3, 3.0, sharex=True)
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
        axes.xaxis.set_major_formatter(_in_percent)
        axes.grid(True)
    return _finished(figure, row, "Asynchronous accuracy (%)", columns=3)


def table1(setup: Setup, results: list[Result]) -> Story:
    """Returns what runs with one, two and four servers say of the mean accuracy over the curve."""
    sparse, dense = (of_kind(results, servers=servers)[0].run.grid for servers in (SERVERS[0], SERVERS[-1]))
    means: dict[str, Means] = {WHOLE: {}, EQUAL: {}, AREA: {}}
    for method, servers in product(setup.methods, SERVERS):
        runs = of_kind(results, method=method, servers=servers)
        curves = accuracies(runs, sparse)
        means[WHOLE][method, servers] = np.array([run.summary["mean_curve_accuracy"] for run in runs])
        means[EQUAL][method, servers] = curves.mean(axis=1)
        means[AREA][method, servers] = _areas(sparse, curves)
    few, many = (accuracies(results, grid, servers=SERVERS[0]).mean() for grid in (sparse, dense))
    words = words_of("table1", gained=100 * (many - few))
    words["differs"] += "\n\n" + words["pace_of_selections" if setup.scale == "paper" else "pace_of_trainings"]
    claims = [claim for kind in (WHOLE, EQUAL) for claim in _claims_of_means(setup, kind, means[kind])]
    tables = [*(_means_table(setup, *one) for one in means.items()), words["note"], _staleness(results, words["age"])]
    return Story(_draw_means(setup, means), points(results), claims, tables, words)


def _claims_of_means(setup: Setup, kind: str, means: Means) -> list[Claim]:
    claims = []
    for method in setup.methods:
        gains = {pair: interval(means[method, pair[1]] - means[method, pair[0]]) for pair in pairwise(SERVERS)}
        evidence = "; ".join(f"{more} - {fewer}: {gain}" for (fewer, more), gain in gains.items())
        verdict = all_of(judge(gain, above=0) for gain in gains.values())
        text = f"{TITLES[method]}: more servers, higher mean accuracy {kind}"
        claims.append(Claim(text, verdict, evidence, count(setup.seeds, "seed")))
    return _with_all(claims, f"All methods: consistently higher {kind}")


def _means_table(setup: Setup, kind: str, means: Means) -> str:
    rows = []
    for method in setup.methods:
        paper = {m: published("table1", setup.data_type, method, m) if kind == WHOLE else None for m in SERVERS}
        rows.append([TITLES[method], *(mean_and_deviation(means[method, m], paper[m]) for m in SERVERS)])
    has_paper = kind == WHOLE and published("table1", setup.data_type) is not None
    beside = "in brackets the paper's" if has_paper else "the paper has none"
    about = f"Mean test accuracy {kind} in %, ± standard deviation over seeds; {beside}."
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
def _draw_means(setup: Setup, means: dict[str, Means]) -> Figure:
    figure, row = _panels(2, PAGE * min(1.0, 0.6 + 0.1 * len(setup.methods)), 2.7)
    places = np.arange(len(setup.methods))
    for axes, kind in zip(row, (WHOLE, EQUAL), strict=True):
        for shift, servers in zip((-0.18, 0, 0.18), SERVERS, strict=True):
            values = np.array([means[kind][method, servers] for method in setup.methods]).T
            look: dict[str, Any] = {"label": count(servers, "server"), "linestyle": "none", "markersize": 4.5}
            _mean_line(axes, places + shift, values, servers, **look)
        axes.set_xticks(places, [TITLES[method] for method in setup.methods])
        axes.set(xlim=(-0.35, len(places) - 0.65), title=f"Mean accuracy {kind}")
        axes.grid(True, axis="y")
    return _finished(figure, row, "Mean test accuracy (%)", columns=3)
