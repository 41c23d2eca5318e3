"""Figure 2: accuracy against labels, asynchronous, one server."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.pages import SILENT, Claim, Story, named, spread, table
from aal.app.experiments.aal_2021.plans import Run, single
from aal.app.experiments.aal_2021.published import METHODS, TITLES, accuracy
from aal.app.experiments.aal_2021.results import Result, matrix, point_rows
from aal.app.experiments.aal_2021.scales import Setup
from aal.app.experiments.aal_2021.stats import Numbers, Verdict, all_of, aubc, interval, judge, seeds_told
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

MARGIN = 0.01
LOOKS = dict(zip(METHODS, zip((COLOURS[6], *COLOURS[:3], COLOURS[5]), "sovD^", strict=True), strict=True))
RULES = f"""\
Areas under the curve (AUBC: trapezoids over all label counts of a panel, divided by their span) are compared seed by
seed, between runs with the same initial set. Differences are in percentage points; in square brackets is the 95 %
confidence interval of their mean (Student's t, no correction for the number of comparisons). "Below" holds when the
whole interval is above 0, "comparable" when it is above -{100 * MARGIN:g}, a margin of ours, for the paper names
none. The best baseline is the one with the highest mean, chosen on the very runs that AAL is then compared with: chance
has helped it to be chosen, so the comparison favours it."""
DIFFERS = "All methods are asynchronous here, with the published code's bound: selection is at most one round ahead."

Panels = dict[int, dict[str, Numbers]]  # batch size -> method -> accuracies (seeds, trainings)


def plan(setup: Setup) -> list[Run]:
    """Returns the runs, seed by seed, so that a sweep that is stopped has whole seeds."""
    return [
        single(setup, method, "async", batch, seed)
        for seed in range(setup.seeds)
        for batch in setup.batches
        for method in setup.methods
    ]


def tell(setup: Setup, results: list[Result]) -> Story:
    """Returns what the runs say."""
    grids = {result.run.batch: result.run.grid for result in results}
    panels: Panels = {
        batch: {method: matrix(results, grid, batch=batch, method=method) for method in setup.methods}
        for batch, grid in grids.items()
    }
    return Story(
        title="Figure 2: accuracy against labels with one server",
        picture=_draw(setup, panels, grids),
        caption="Test accuracy against labels, mean and standard deviation over seeds"
        + ("; dotted: the paper." if setup.scale == "paper" else "."),
        rows=point_rows(results, lambda run, number: accuracy(setup.data_type, run.batch, run.method, number)),
        claims=[claim for batch, panel in panels.items() for claim in _claims(batch, panel, grids[batch])],
        rules=RULES,
        tables=[part for batch, panel in panels.items() for part in _tables(setup, batch, panel, grids[batch])],
        silent=(
            *SILENT,
            "Whether the baselines of figure 2 are asynchronous, as the text says: they coincide with the synchronous "
            "values of figure 3.",
        ),
        differs=DIFFERS,
    )


def _areas(panel: dict[str, Numbers], grid: list[int]) -> dict[str, Numbers]:
    return {method: aubc(np.array(grid, float), accuracies) for method, accuracies in panel.items()}


def _claims(batch: int, panel: dict[str, Numbers], grid: list[int]) -> list[Claim]:
    areas = _areas(panel, grid)
    runs = seeds_told(len(next(iter(areas.values()))))
    others = {method: area for method, area in areas.items() if method != "random"} if "random" in areas else {}
    gains = {method: interval(area - areas["random"]) for method, area in others.items()}
    below = Claim(
        f"Batch size {batch:,}: random sampling is below {named(gains) or 'the others'}",
        all_of(judge(gain, above=0) for gain in gains.values()),
        "; ".join(f"{TITLES[method]} {gain}" for method, gain in gains.items()) or "-",
        runs,
    )
    baselines = {method: float(area.mean()) for method, area in areas.items() if method != "AAL"}
    best = max(baselines, key=lambda method: baselines[method], default=None)
    text = f"Batch size {batch:,}: AAL is comparable to the best baseline"
    if best is None or "AAL" not in areas:
        return [below, Claim(text, Verdict.UNTRIED, "-", runs)]
    lead = interval(areas["AAL"] - areas[best])
    comparable = judge(lead, above=-MARGIN)
    return [below, Claim(f"{text} of {named(baselines)}", comparable, f"AAL - {TITLES[best]}: {lead}", runs)]


def _tables(setup: Setup, batch: int, panel: dict[str, Numbers], grid: list[int]) -> list[str]:
    areas, size = _areas(panel, grid), setup.size.labels(batch)
    published = {
        method: [accuracy(setup.data_type, batch, method, number) for number in range(len(grid))] for method in panel
    }
    here = f" ({size:,} here)" if size != batch else ""
    points = (
        [f"{labels:,}", *(spread(panel[method][:, number], published[method][number]) for method in panel)]
        for number, labels in enumerate(grid)
    )
    return [
        f"Batch size {batch:,}{here}: test accuracy in %, mean ± standard deviation over seeds; in brackets the "
        "paper's at the same training of its own run.\n",
        table(("labels", *(TITLES[method] for method in panel)), points),
        table(
            ("", "AUBC in %", "minus random, points", "AAL minus it, points"),
            (
                [
                    TITLES[method],
                    spread(area, _area_published(published[method], grid)),
                    str(interval(area - areas["random"])) if "random" in areas and method != "random" else "-",
                    str(interval(areas["AAL"] - area)) if "AAL" in areas and method != "AAL" else "-",
                ]
                for method, area in areas.items()
            ),
        ),
    ]


def _area_published(curve: list[float | None], grid: list[int]) -> float | None:
    known = [value for value in curve if value is not None]
    return float(aubc(np.array(grid, float), np.array(known))) if len(known) == len(grid) else None


@mpl.rc_context(STYLE)
def _draw(setup: Setup, panels: Panels, grids: dict[int, list[int]]) -> Figure:
    figure = Figure(figsize=(max(3.5, PAGE * len(panels) / 3), 2.9))
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (batch, panel) in zip(row, panels.items(), strict=True):
        for method, accuracies in panel.items():
            colour, marker = LOOKS[method]
            deviation = accuracies.std(axis=0, ddof=1) if len(accuracies) > 1 else None
            axes.errorbar(
                grids[batch], accuracies.mean(axis=0), deviation, color=colour, marker=marker, markersize=4,
                linewidth=1.2, elinewidth=0.8, capsize=2, label=TITLES[method],
            )  # fmt: skip
            if setup.scale == "paper":
                curve = [accuracy(setup.data_type, batch, method, number) for number in range(len(grids[batch]))]
                axes.plot(grids[batch], np.array(curve, float), ":", color=colour, linewidth=1)
        size = setup.size.labels(batch)
        axes.set_title(f"Batch size {batch:,}" + (f" ({size:,} here)" if size != batch else ""))
        axes.set_xlabel("Labels in the training set")
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
        axes.grid(True)
    row[0].set_ylabel("Test accuracy (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc=ABOVE, ncols=5)
    return figure
