"""The page, picture and rows of the labels that strategies save."""

import pathlib
import textwrap
from collections.abc import Iterator
from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from aal.app.experiments.aal_2021.page import Claim, count, titled
from aal.app.experiments.aal_2021.statistics import Interval, Verdict, judge
from aal.app.experiments.labels_saved.plans import BASELINE, SETTINGS, Setup
from aal.app.experiments.labels_saved.savings import Result, Saving, savings_of
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE, label_axis
from aal.reporting.tables import markdown_table

HALF = 0.5
# Where the best strategy is to need at most half of the labels of random sampling.
AIMED = tuple(name for name in SETTINGS if name != "balanced")
WORDS = {"async": "asynchronous", "sync": "synchronous"}


def shown(share: Interval) -> str:
    """Returns a share with its interval, in percent."""
    mean, low, high = (f"{100 * value:.0f}" for value in (share.mean, share.low, share.high))
    return f"{mean} % [{low}, {high}]" if share.seeds > 1 else f"{mean} %"


def claims_of(setup: Setup, results: list[Result]) -> list[Claim]:
    """Returns, for each setting and mode, whether the best strategy needs at most half of random's labels."""
    claims = []
    for setting, mode in _kinds(setup):
        savings = savings_of(setup, results, setting, mode)
        others = {method: saving for method, saving in savings.items() if method != BASELINE}
        if not others:
            continue
        best = min(others, key=lambda method: others[method].needed.mean)
        needed = others[best].needed
        text = f"{SETTINGS[setting]['title']}, {WORDS[mode]}: the best strategy needs at most half of random's labels"
        aim = judge(needed, below=HALF) if setting in AIMED else Verdict.UNTRIED
        if setting not in AIMED:
            text = f"{SETTINGS[setting]['title']}, {WORDS[mode]}: the best strategy needs fewer labels than random"
            aim = judge(needed, below=1.0)
        claims.append(Claim(text, aim, f"{best}: {shown(needed)}", count(setup.seeds, "seed")))
    return claims


def tables_of(setup: Setup, results: list[Result]) -> Iterator[str]:
    """Yields a table for each setting: labels needed and final accuracy of every strategy, then who waited."""
    for setting in setup.settings:
        found = {mode: savings_of(setup, results, setting, mode) for mode in setup.modes}
        head = ["strategy"]
        for mode in setup.modes:
            head += [f"labels needed, {WORDS[mode]}", "got there", "final accuracy"]
        rows = [
            [method, *(cell for mode in setup.modes for cell in _cells(setup, found[mode][method]))]
            for method in setup.methods
        ]
        about = f"**{SETTINGS[setting]['title']}**: {SETTINGS[setting]['about']}."
        yield titled(textwrap.fill(about, 118), head, rows)
        yield titled("Who waited (means over strategies and seeds):", ("", *_WAITS), _waits(setup, results, setting))


_WAITS = ("annotators wait", "labels a second", "staleness, versions", "hours, virtual")


def _waits(setup: Setup, results: list[Result], setting: str) -> Iterator[list[str]]:
    for mode in setup.modes:
        summaries: list[dict[str, Any]] = [
            result.summary for result in results if result.run.setting == setting and result.run.mode == mode
        ]
        mean = [
            np.mean([summary["annotator_wait_s"]["mean"] for summary in summaries]),
            np.mean([summary["labels_per_s"] for summary in summaries]),
            np.mean([summary["staleness"]["mean"] for summary in summaries]),
            np.mean([summary["wall_s"] for summary in summaries]) / 3600,
        ]
        yield [WORDS[mode], f"{mean[0]:.2f} s a label", f"{mean[1]:.2f}", f"{mean[2]:.2f}", f"{mean[3]:.2f}"]


def _cells(setup: Setup, saving: Saving) -> tuple[str, str, str]:
    return shown(saving.needed), f"{saving.reached} of {setup.seeds}", f"{100 * saving.final:.1f} %"


def rows_of(results: list[Result]) -> list[dict[str, Any]]:
    """Returns a row for each point of each curve."""
    return [
        {
            "run": result.run.name,
            **{key: getattr(result.run, key) for key in ("setting", "method", "mode", "seed")},
            **{"labels": int(labels), "test_accuracy": accuracy},
        }
        for result in results
        for labels, accuracy in zip(result.labels.tolist(), result.accuracy.tolist(), strict=True)
    ]


@mpl.rc_context(STYLE)
def picture_of(setup: Setup, results: list[Result]) -> Figure:
    """Draws mean accuracy against labels: a row for each mode, a column for each setting."""
    columns = len(setup.settings)
    figure = Figure(figsize=(max(PAGE / 2, PAGE * columns / 3), 2.4 * len(setup.modes)))
    panels = figure.subplots(len(setup.modes), columns, squeeze=False)
    for axes, (mode, setting) in zip(panels.flat, product(setup.modes, setup.settings), strict=True):
        for place, method in enumerate(setup.methods):
            kind = (setting, mode, method)
            runs = [one for one in results if (one.run.setting, one.run.mode, one.run.method) == kind]
            grid = np.linspace(*runs[0].run.span, 60)
            mean = np.mean([np.interp(grid, run.labels, run.accuracy) for run in runs], axis=0)
            colour = "black" if method == BASELINE else COLOURS[(place - 1) % (len(COLOURS) - 1)]
            line = "--" if method == BASELINE else "-" if place < len(COLOURS) else ":"
            axes.plot(grid, 100 * mean, label=method, linewidth=1.2, color=colour, linestyle=line)
        axes.set(title=f"{SETTINGS[setting]['title']}, {WORDS[mode]}", xlabel="Labels in the training set")
        label_axis(axes)
        axes.grid(True)
    for row in panels:
        row[0].set_ylabel("Test accuracy (%)")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc=ABOVE, ncols=3 + 2 * (columns > 1))
    return figure


def page_of(setup: Setup, results: list[Result], claims: list[Claim], command: str, seconds: float, words: str) -> str:
    """Returns the Markdown page."""
    distinct = {key: "; ".join(sorted({one.meta.get(key, "unknown") for one in results})) for key in _origin(results)}
    hardware = distinct.pop("hardware")
    versions = [(key.removeprefix("version_"), value) for key, value in distinct.items()]
    table = ((claim.text, f"**{claim.verdict}**", claim.evidence, claim.runs) for claim in claims)
    return words.format(
        claims=markdown_table(("aim", "verdict", "evidence", "from"), table),
        tables="\n".join(tables_of(setup, results)),
        command=command,
        runs=len(results),
        seeds=count(setup.seeds, "seed"),
        minutes=f"{seconds / 60:.0f}",
        hardware=hardware,
        features=", ".join(f"{name}: `{pathlib.PurePath(file).name}`" for name, file in setup.features.items())
        or "none",
        versions=markdown_table(("software", "version"), versions),
    )


def _origin(results: list[Result]) -> list[str]:
    versions = sorted({key for result in results for key in result.meta if key.startswith("version_")})
    return ["hardware", *versions]


def _kinds(setup: Setup) -> Iterator[tuple[str, str]]:
    return ((setting, mode) for setting in setup.settings for mode in setup.modes)
