"""The page of the study of federated active learning: curves, tables, verdicts."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.page import Claim, count, mean_and_deviation, titled
from aal.app.experiments.aal_2021.statistics import Interval, all_of, interval, judge
from aal.app.experiments.kafal_2023.plans import FOLDER, PUBLISHED, SCALES, UPDATES, Run, Setup, methods_of
from aal.app.experiments.kafal_2023.results import Result, means, of_kind, read_results
from aal.app.experiments.kafal_2023.slow_clients import SlowRun, slow_results, slow_section
from aal.config.errors import of_system
from aal.reporting.curves import Floats
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE, label_axis, save
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration
from aal.storage.atomic import write_whole

NAMES = {"kcfu": "KCFU", "fedavg": "FedAvg"}
MIXED = """\
Two runs of a pair may have been made on different processors, which round differently: docs/federated.md says how far
that moves a curve."""
BEATEN = {"uncertainty": ("entropy", "margin"), "random": ("random",)}  # by KSAS, as the paper claims


def claims_of(setup: Setup, results: Sequence[Result]) -> list[Claim]:
    """Judges by paired differences over seeds of the mean of the curve."""
    runs, found = count(setup.seeds, "seed"), []
    for spread in setup.spreads:
        methods, where = methods_of(setup, spread), _clients(spread)
        for against, others in BEATEN.items():
            pairs = [
                (
                    f"{NAMES[update]}, {other}",
                    means(results, "ksas", update, spread) - means(results, other, update, spread),
                )
                for update in UPDATES
                for other in others
                if {"ksas", other} <= set(methods)
            ]
            found += _claim(f"KSAS beats {against}, {where}", pairs, runs)
        pairs = [(one, means(results, one, "kcfu", spread) - means(results, one, "fedavg", spread)) for one in methods]
        found += _claim(f"KCFU beats FedAvg, {where}", pairs, runs)
    return [*found, *_with_alpha(setup, results, runs)]


def _claim(text: str, pairs: Sequence[tuple[str, Floats]], runs: str) -> list[Claim]:
    """A claim that holds where each of the differences is above 0; none where there are no differences."""
    told = [(name, interval(values)) for name, values in pairs]
    evidence = "; ".join(f"{name} {one}" for name, one in told)
    return [Claim(text, all_of(judge(one, above=0) for _, one in told), evidence, runs)] if told else []


def _with_alpha(setup: Setup, results: Sequence[Result], runs: str) -> list[Claim]:
    """Whether what KSAS and KCFU gain is more where clients differ as published than where they are alike."""
    spreads = [spread for spread in setup.spreads if spread != PUBLISHED]
    if PUBLISHED not in setup.spreads or not spreads or not {"ksas", "random"} <= set(setup.methods):
        return []

    def gain(of: str, spread: str) -> Floats:
        more, less = (("ksas", "kcfu"), ("random" if of == "KSAS" else "ksas", "kcfu" if of == "KSAS" else "fedavg"))
        return means(results, *more, spread) - means(results, *less, spread)

    about = {"KSAS": "random, under KCFU,", "KCFU": "FedAvg, with KSAS,"}
    return [
        claim
        for of, other in about.items()
        for claim in _claim(
            f"{of} gains more over {other} the more clients differ",
            [(f"{PUBLISHED} against {spread}", gain(of, PUBLISHED) - gain(of, spread)) for spread in spreads],
            runs,
        )
    ]


def _clients(spread: str) -> str:
    return "IID clients" if spread == "iid" else f"alpha {spread}"


@mpl.rc_context(STYLE)
def picture_of(setup: Setup, results: Sequence[Result]) -> Figure:
    """Draws mean accuracy against labels: a row for each update, a column for each alpha."""
    figure = Figure(figsize=(max(PAGE / 2, PAGE * len(setup.spreads) / 3), 2.3 * len(UPDATES)))
    panels = figure.subplots(len(UPDATES), len(setup.spreads), squeeze=False, sharey=True)
    for row, update in zip(panels, UPDATES, strict=True):
        for axes, spread in zip(row, setup.spreads, strict=True):
            for method in methods_of(setup, spread):
                place, runs = setup.methods.index(method), of_kind(results, method, update, spread)
                grid = np.mean([run.labels for run in runs], axis=0)  # seeds differ by a few labels
                mean = np.mean([run.accuracy for run in runs], axis=0)
                axes.plot(
                    grid, 100 * mean, marker=".", linewidth=1.2, color=COLOURS[place % len(COLOURS)], label=method
                )
            axes.set(title=f"{NAMES[update]}, {_clients(spread)}", xlabel="Labels")
            label_axis(axes)
            axes.grid(True)
        row[0].set_ylabel("Test accuracy (%)")
    fullest = max(panels[0], key=lambda axes: len(axes.lines))
    figure.legend(*fullest.get_legend_handles_labels(), loc=ABOVE, ncols=4)
    return figure


def tables_of(setup: Setup, results: Sequence[Result]) -> str:
    """Returns a table for each alpha: the mean of the curve and the last point, by method and update."""
    head, tables = ["strategy"], []
    for update in UPDATES:
        head += [f"{NAMES[update]}, mean of the curve", f"{NAMES[update]}, at the end"]
    head.append("KCFU minus FedAvg [95 % interval]")
    for spread in setup.spreads:
        rows = []
        for method in methods_of(setup, spread):
            row: list[str] = [method]
            for update in UPDATES:
                last = np.array([one.accuracy[-1] for one in of_kind(results, method, update, spread)])
                row += [mean_and_deviation(means(results, method, update, spread)), mean_and_deviation(last)]
            gain: Interval = interval(means(results, method, "kcfu", spread) - means(results, method, "fedavg", spread))
            rows.append([*row, str(gain)])
        tables.append(titled(f"**{_clients(spread)}**, percent, mean ± standard deviation over seeds:", head, rows))
    return "\n".join(tables)


def rows_of(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Returns a row for each point of each curve."""
    return [
        {
            **{"run": one.run.name, "method": one.run.method, "update": one.run.update, "alpha": one.run.spread},
            **{"seed": one.run.seed, "labels": int(labels), "test_accuracy": float(accuracy)},
        }
        for one in results
        for labels, accuracy in zip(one.labels, one.accuracy, strict=True)
    ]


def page_of(
    setup: Setup, results: Sequence[Result], claims: Iterable[Claim], slow: str, command: str, seconds: float
) -> str:
    """Returns the Markdown page."""
    table = [(claim.text, f"**{claim.verdict}**", claim.evidence, claim.runs) for claim in claims]
    hardware = sorted({one.hardware for one in results})
    return (
        (FOLDER / "page.md")
        .read_text(encoding="utf-8")
        .format(
            data=setup.data_type,
            scale=setup.scale,
            differs=SCALES[setup.scale].differs,
            chosen_by={"local": "its own model", "global": "the global model", "both": "both as one"}[setup.chosen_by],
            runs=len(results),
            seeds=count(setup.seeds, "seed"),
            claims=markdown_table(("claim", "verdict", "percentage points [95 % interval over seeds]", "from"), table),
            tables=tables_of(setup, results),
            slow=slow,
            command=command,
            took=duration(seconds),
            hardware="; ".join(hardware),
            mixed=f"\n\n{MIXED}" if len(hardware) > 1 else "",
        )
    )


def write_page(
    setup: Setup, plan: Sequence[Run], slow: Sequence[SlowRun], out: pathlib.Path, command: str, seconds: float
) -> tuple[pathlib.Path, list[Claim]]:
    """Writes `kafal.md`, `kafal.png`, `kafal.pdf` and `kafal.csv`; returns the page and the judged claims."""
    results = read_results(plan, out / "runs")
    section = slow_section(setup, slow_results(slow, out / "runs"))
    claims, page = claims_of(setup, results), out / "kafal.md"
    try:
        save(picture_of(setup, results), out / "kafal")
        write_whole(out / "kafal.csv", pd.DataFrame(rows_of(results)).to_csv(index=False).encode())
        write_whole(page, page_of(setup, results, claims, section, command, seconds).encode())
    except OSError as error:
        raise of_system(error, f"{out}: cannot be written: {error.strerror or error}") from None
    return page, claims
