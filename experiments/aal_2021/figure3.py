"""Figure 3: synchronous against asynchronous accuracy, one strategy for all workers, one server."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.pages import SILENT, Claim, Story, spread, table
from aal.app.experiments.aal_2021.plans import Run, single
from aal.app.experiments.aal_2021.published import BATCHES, TITLES
from aal.app.experiments.aal_2021.results import Result, matrix, point_rows
from aal.app.experiments.aal_2021.scales import Setup
from aal.app.experiments.aal_2021.stats import Numbers, all_of, aubc, interval, judge, seeds_told
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

MARGIN, CLOSE = 0.01, 0.02
LOOKS = dict(zip(BATCHES, zip(COLOURS, "osD", strict=False), strict=True))
RULES = f"""\
A pair is two accuracies at the same number of labels from runs with the same seed, so with the same initial set. The
initial models are left out: they are the same, and no difference between them could show. Differences are in
percentage points. "Comparable" holds when the 95 % confidence interval of the mean difference over seeds (Student's t)
lies within ±{100 * MARGIN:g}, "close" when that of the mean distance lies below {100 * CLOSE:g}; both margins are
ours, the second after the spread of the paper's own points."""
DIFFERS = """\
Synchronous is one worker that owns the whole unlabelled pool, and one server: train, select, label, in turn.
Asynchronous is ten workers with a tenth of the pool each, selection at most one round ahead. So the two differ in the
division of the pool as well as in waiting; the paper does not say how its synchronous method divides it."""

Pairs = dict[tuple[str, int], tuple[Numbers, Numbers]]  # strategy, batch size -> sync and async (seeds, trainings)


def plan(setup: Setup) -> list[Run]:
    """Returns the runs; the asynchronous ones are those of figure 2."""
    return [
        single(setup, method, mode, batch, seed)
        for seed in range(setup.seeds)
        for batch in setup.batches
        for method in setup.methods
        for mode in ("async", "sync")
    ]


def tell(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs say."""
    grids = {result.run.batch: result.run.grid[1:] for result in results}
    pairs: Pairs = {
        (method, batch): (
            matrix(results, grids[batch], method=method, batch=batch, mode="sync"),
            matrix(results, grids[batch], method=method, batch=batch, mode="async"),
        )
        for method in setup.methods
        for batch in setup.batches
    }
    return Story(
        title="Figure 3: synchronous against asynchronous accuracy",
        picture=_draw(setup, pairs),
        caption="Test accuracy of the asynchronous runs against that of the synchronous ones at the same number of "
        f"labels, a marker a pair of runs. On the line both are equal; the band is ±{100 * CLOSE:g} points around it.",
        rows=point_rows(results),
        claims=_claims(setup, pairs),
        rules=RULES,
        tables=[*_tables(pairs, grids), _areas(setup, results)],
        silent=(
            *SILENT,
            "The accuracies behind the points; all lie within about 0.02 of the diagonal but one (least confidence, "
            "CIFAR-100, batches of 2,500: 0.433 and 0.475).",
            "How the synchronous method divides the pool among workers, and whether its annotators wait in turn.",
        ),
        differs=DIFFERS,
    )


def _gaps(pairs: Pairs, method: str) -> Numbers:
    """Returns asynchronous minus synchronous accuracy (seeds, all points of a strategy)."""
    return np.concatenate([late - prompt for (name, _), (prompt, late) in pairs.items() if name == method], axis=1)


def _claims(setup: Setup, pairs: Pairs) -> list[Claim]:
    runs = seeds_told(setup.seeds)
    gaps = {method: _gaps(pairs, method) for method in setup.methods}
    means = {method: interval(gap.mean(axis=1)) for method, gap in gaps.items()}
    verdicts = {method: judge(mean, above=-MARGIN, below=MARGIN) for method, mean in means.items()}
    far = interval(np.abs(np.concatenate(list(gaps.values()), axis=1)).mean(axis=1))
    largest = max(float(np.abs(gap.mean(axis=0)).max()) for gap in gaps.values())
    alone = max(float(np.abs(gap).max()) for gap in gaps.values())
    return [
        *(
            Claim(
                f"{TITLES[method]}: synchronous and asynchronous accuracy are comparable",
                verdicts[method],
                f"asynchronous - synchronous: {means[method]}",
                runs,
            )
            for method in setup.methods
        ),
        Claim("All strategies: they are comparable", all_of(verdicts.values()), "the rows above", runs),
        Claim(
            "The points lie close to the diagonal",
            judge(far, below=CLOSE),
            f"mean distance {far}; the largest {100 * largest:.1f} as a mean over seeds, {100 * alone:.1f} singly",
            runs,
        ),
    ]


def _tables(pairs: Pairs, grids: dict[int, list[int]]) -> list[str]:
    rows: list[list[str]] = []
    for (method, batch), (prompt, late) in pairs.items():
        for number, labels in enumerate(grids[batch]):
            gap: Any = interval(late[:, number] - prompt[:, number])
            point = [TITLES[method], f"{batch:,}", f"{labels:,}"]
            rows.append([*point, spread(prompt[:, number]), spread(late[:, number]), str(gap)])
    note = "Test accuracy in %, mean ± standard deviation over seeds. Batch sizes are the paper's; labels are ours.\n"
    return [
        note,
        table(("strategy", "batch size", "labels", "synchronous", "asynchronous", "difference, points"), rows),
    ]


def _areas(setup: Setup, results: list[Result]) -> str:
    grids = {result.run.batch: result.run.grid for result in results}
    rows = []
    for method, batch in itertools.product(setup.methods, setup.batches):
        labels = np.array(grids[batch], float)
        prompt, late = (
            aubc(labels, matrix(results, grids[batch], method=method, batch=batch, mode=mode))
            for mode in ("sync", "async")
        )
        rows.append([TITLES[method], f"{batch:,}", spread(prompt), spread(late), str(interval(late - prompt))])
    head = ("strategy", "batch size", "AUBC, synchronous", "AUBC, asynchronous", "difference, points")
    about = "Areas under the curves (AUBC) in %, initial models included as in figure 2; differences seed by seed."
    return f"{about}\n\n{table(head, rows)}"


@mpl.rc_context(STYLE)
def _draw(setup: Setup, pairs: Pairs) -> Figure:
    figure = Figure(figsize=(max(3.5, PAGE * len(setup.methods) / 3), 3.0))
    row = figure.subplots(1, len(setup.methods), sharex=True, sharey=True, squeeze=False)[0]
    every = np.concatenate([values.ravel() for pair in pairs.values() for values in pair])
    low, high = every.min() - CLOSE, min(every.max() + CLOSE, 1.0)
    for axes, method in zip(row, setup.methods, strict=True):
        ends = np.array([low, high])
        axes.fill_between(ends, ends - CLOSE, ends + CLOSE, color="0.93", linewidth=0)
        axes.plot(ends, ends, color="0.5", linewidth=1)
        for batch in setup.batches:
            colour, marker = LOOKS[batch]
            points = (values.ravel() for values in pairs[method, batch])
            label = f"batch size {batch:,}"
            axes.plot(*points, marker, color=colour, markersize=3.5, alpha=0.8, label=label)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=TITLES[method])
        axes.set_xlabel("Synchronous accuracy (%)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(mpl.ticker.MaxNLocator(5))
            axis.set_major_formatter(lambda share, _: f"{100 * share:g}")
        axes.grid(True)
    row[0].set_ylabel("Asynchronous accuracy (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=3)
    return figure
