"""The page of the study of several target models: curves, table, waits, verdicts."""

import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.statistics import Interval, all_of, interval, judge
from aal.app.experiments.diam_2022.plans import FOLDER, SCALES, Run, Setup
from aal.reporting.curves import Floats, at_labels
from aal.reporting.metrics import summary_of
from aal.reporting.plots import save
from aal.reporting.record import column, read
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration, percent
from aal.storage.atomic import write_whole

PUBLISHED: dict[str, Any] = yaml.safe_load((FOLDER / "published.yaml").read_text(encoding="utf-8"))
UNCERTAIN = ("entropy", "margin", "least_confidence")
RIGHT_SCALE = """\
The published margin, entropy and least confidence are random sampling: their code scales the scores of one image, not
those of one model over the pool, so that all are 0. Here each target's scores are scaled over the candidates.
"""


class Results:
    """The summaries of the finished runs of a plan."""

    def __init__(self, setup: Setup, plan: Iterable[Run], runs: pathlib.Path) -> None:
        self.setup, scale = setup, SCALES[setup.scale]
        self.grid = scale.initial + scale.batch * np.arange(scale.rounds + 1.0)
        self.found = [(run, summary_of(read(runs / run.name))) for run in plan]

    def of(self, method: str, number: int, mode: str = "sync") -> list[dict[str, Any]]:
        """Returns the summaries of a kind of run, in order of seed."""
        return [summary for run, summary in self.found if (run.method, run.number, run.mode) == (method, number, mode)]

    def accuracies(self, method: str, number: int) -> Floats:
        """Returns the test accuracies (seeds, targets, points of the grid)."""
        return np.array(
            [
                [
                    at_labels(column(one["curve"], "labels"), column(one["curve"], "test_accuracy"), self.grid)
                    for one in run["targets"]
                ]
                for run in self.of(method, number)
            ]
        )

    def means(self, method: str, number: int) -> Floats:
        """Returns the mean over targets and curve of each seed (seeds,)."""
        return np.asarray(self.accuracies(method, number).mean(axis=(1, 2)))


def write_page(setup: Setup, plan: Sequence[Run], out: pathlib.Path, command: str, seconds: float) -> pathlib.Path:
    """Writes `diam.md`, `diam.png`, `diam.pdf` and `diam.csv`; returns the page."""
    results = Results(setup, plan, out / "runs")
    save(_draw(results), out / "diam")
    write_whole(out / "diam.csv", pd.DataFrame(_rows(results)).to_csv(index=False).encode())
    scale = SCALES[setup.scale]
    parts = [
        f"# Several target models (DIAM) on {setup.data_type}, scale {setup.scale}\n",
        f"`{command}`; {setup.seeds} seed{'s' * (setup.seeds > 1)}; the runs took {duration(seconds)} in all.\n",
        'Tang and Huang, "Active Learning for Multiple Target Models": one labelled set serves M networks at once.\n',
        f"How this differs from the paper: {scale.differs}\n",
        "![Learning curves](diam.png)\n",
        "Test accuracy against labels: the mean over targets and seeds; the band is one standard deviation over the "
        "targets, of DIAM and of random. [PDF](diam.pdf), [every point](diam.csv)\n",
        "## Mean over the curve\n",
        "Percent, mean over targets, points of the curve and seeds ± standard deviation over the targets (at each "
        "point of the curve, then the mean); published: one seed.\n",
        _table(results),
        RIGHT_SCALE,
        "## Claims\n",
        _claims(results),
        *_waits(results),
    ]
    page = out / "diam.md"
    write_whole(page, "\n".join(parts).encode())
    return page


def _draw(results: Results) -> Figure:
    numbers, methods = results.setup.numbers, results.setup.methods
    figure = Figure(figsize=(3.6 * len(numbers), 3.2), layout="constrained")
    for place, number in enumerate(numbers):
        axes = figure.add_subplot(1, len(numbers), place + 1, xlabel="Labels", title=f"{number} targets")
        for colour, method in enumerate(methods):
            found = results.accuracies(method, number)
            mean, std = 100 * found.mean(axis=(0, 1)), 100 * found.std(axis=1).mean(axis=0)
            axes.plot(results.grid, mean, color=f"C{colour}", label=method, marker=".", linewidth=1)
            if method in ("diam", "random"):
                axes.fill_between(results.grid, mean - std, mean + std, color=f"C{colour}", alpha=0.12, linewidth=0)
        axes.grid(True, alpha=0.3)
        if not place:
            axes.set_ylabel("Test accuracy (%)")
            axes.legend(fontsize="small", loc="lower right")
    return figure


def _rows(results: Results) -> list[dict[str, Any]]:
    return [
        {
            **{"run": run.name, "method": run.method, "mode": run.mode, "targets": run.number, "seed": run.seed},
            **{"target": target["name"], "labels": point["labels"], "test_accuracy": point["test_accuracy"]},
        }
        for run, summary in results.found
        for target in summary["targets"]
        for point in target["curve"]
    ]


def _table(results: Results) -> str:
    published = PUBLISHED.get(results.setup.data_type, {})
    head, rows = ["method"], []
    for number in results.setup.numbers:
        head += [f"M = {number}", f"published, M = {number}"]
    for method in results.setup.methods:
        row = [method]
        for number in results.setup.numbers:
            found = 100 * results.accuracies(method, number)
            row.append(f"{found.mean():.2f} ± {found.std(axis=1).mean():.2f}")
            row.append(
                "{:.2f} ± {:.2f}".format(*published[method][number]) if number in published.get(method, {}) else "-"
            )
        rows.append(row)
    return markdown_table(head, rows)


def _claims(results: Results) -> str:
    """Paired differences over seeds with 95 % intervals, in percentage points, and what they say of each claim."""
    methods, rows = results.setup.methods, []

    def difference(one: str, other: str, number: int) -> Interval:
        return interval(results.means(one, number) - results.means(other, number))

    for number in results.setup.numbers:
        if "diam" in methods and len(methods) > 1:
            found = {other: difference("diam", other, number) for other in methods if other != "diam"}
            verdict = all_of(judge(one, above=0) for one in found.values())
            told = ", ".join(f"{other} {one}" for other, one in found.items())
            rows.append((f"DIAM beats every baseline, M = {number}", verdict, f"DIAM minus {told}"))
        for one in ("cal", *UNCERTAIN):
            if one in methods and "random" in methods:
                found_one = difference(one, "random", number)
                about = "" if one == "cal" else ", rightly scaled,"
                rows.append((f"{one}{about} beats random, M = {number}", judge(found_one, above=0), str(found_one)))
    if {"diam", "random"} <= set(methods):
        for few, many in itertools.pairwise(results.setup.numbers):
            gaps = [results.means("diam", number) - results.means("random", number) for number in (few, many)]
            growth = interval(gaps[1] - gaps[0])
            rows.append(
                (f"DIAM's gain over random grows from M = {few} to {many}", judge(growth, above=0), str(growth))
            )
    return markdown_table(("claim", "verdict", "percentage points [95 % interval over seeds]"), rows)


def _waits(results: Results) -> list[str]:
    """The waits of DIAM in turn and asynchronously, where both were run."""
    rows = []
    for number, mode in itertools.product(results.setup.numbers, ("sync", "async")):
        runs = results.of("diam", number, mode)
        if runs and results.setup.asynchronous:
            values = {
                key: np.mean([run[key] for run in runs])
                for key in ("annotators_waited", "wall_s", "mean_curve_accuracy", "final_test_accuracy")
            }
            stale = np.mean([run["staleness"]["mean"] for run in runs])
            took = duration(float(values["wall_s"]), virtual=True)
            accuracies = (percent(values["final_test_accuracy"]), percent(values["mean_curve_accuracy"]))
            rows.append((number, mode, percent(values["annotators_waited"]), took, f"{stale:.2f}", *accuracies))
    if not rows:
        return []
    head = (
        "M",
        "mode",
        "annotators waited",
        "took",
        "staleness of a target, versions",
        "final accuracy",
        "mean of its curve",
    )
    about = (
        "One server; `async` selects just in time (max_staleness auto). A label takes so long that a round is labelled "
        "while all targets are trained once.\n"
    )
    return ["## Nobody waits\n", about, markdown_table(head, rows)]
