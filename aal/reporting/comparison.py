"""Several runs side by side: one picture, every point as CSV, one Markdown page."""

import csv
import io
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aal.config.errors import of_system
from aal.reporting.curves import Floats
from aal.reporting.groups import Groups, at_counts, by_labels, by_time, common_span, grouped, values, whole_runs
from aal.reporting.plots import ABOVE, COLOURS, MARKERS, PAGE, STYLE, in_percent, label_axis, legend_name, save
from aal.reporting.tables import markdown_table, plain_text
from aal.reporting.units import since_begin, time_unit
from aal.storage.atomic import write_whole

WIDEST_NAME = 100  # characters of a line of the legend
ROWS = 11  # label counts in the table
DEFINITIONS = """\
Accuracies are test accuracies in percent, as mean ± standard deviation over the runs of a group. *At equal labels*:
the curve of a run is a straight line between its models; models with equally many labels count once, with their mean.
*Final*: the model of most labels. *AUBC*: area under the curve divided by its span of labels, from 0 to 1.
*Waited*: the share of their time that annotators waited for a query. Of a run with several networks each has a curve
and accuracies of its own; labels, waits and times are of the whole run. `max_staleness=null`: no bound.
"""


def write_comparison(runs: Sequence[pathlib.Path], out: pathlib.Path) -> pathlib.Path:
    """Compares runs; writes comparison.png, .pdf, .csv and .md.

    Runs that differ in nothing but the seed form a group; its name holds the settings in which it differs from others.

    Args:
        runs: their directories.
        out: where the files go; made where it is not there.

    Returns:
        The Markdown page.

    Raises:
        UserError: a run cannot be read or has no curve, the data sets differ, or the files cannot be written.
        RunFailed: the disk is full or fails.
    """
    groups = grouped(runs)
    page = out / "comparison.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(_picture(groups), out / "comparison")
        write_whole(out / "comparison.csv", _csv(groups).encode())
        write_whole(page, _page(groups).encode())
    except OSError as error:
        raise of_system(error, f"{out}: the comparison cannot be written: {error.strerror or error}") from None
    return page


@mpl.rc_context(STYLE)
def _picture(groups: Groups) -> Figure:
    """Accuracy against labels and against time, and the share that annotators waited; a colour for each group."""
    names = min(max(map(len, groups)), WIDEST_NAME)
    columns = max(1, min(len(groups), 110 // (names + 6)))
    figure = Figure(figsize=(PAGE, 2.5 + 0.16 * -(-len(groups) // columns)))
    labels_axes, time_axes, waits = figure.subplots(1, 3, width_ratios=(3, 3, 1.4))
    scale, unit = time_unit(max(run.curve("seconds")[0].max() for runs in groups.values() for run in runs))
    for number, (name, runs) in enumerate(groups.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "label": legend_name(textwrap.fill(name, WIDEST_NAME))}
        marker = MARKERS[number % len(MARKERS)]
        counts, accuracy = by_labels(runs)
        _line(labels_axes, counts, accuracy, {**look, "marker": marker, "markersize": 3})
        times, accuracy = by_time(runs)
        _line(time_axes, times / scale, accuracy, {**look, "drawstyle": "steps-post"})
    whole = whole_runs(groups)
    for number, runs in enumerate(whole.values()):
        at = next(at for at, parts in enumerate(groups.values()) if runs[0] in parts)
        colour, shares = COLOURS[at % len(COLOURS)], values(runs, "annotators_waited")
        if shares.size:
            waits.bar(number, shares.mean(), width=0.7, color=colour, alpha=0.35)
            text, above = f"{100 * shares.mean():.1f}", (number, shares.max())
            waits.annotate(text, above, (0, 3), textcoords="offset points", ha="center", va="bottom", size=6)
        waits.plot(np.full(shares.size, number), shares, MARKERS[at % len(MARKERS)], color=colour, markersize=3)
    labels_axes.set(xlabel="Labels in the labelled pool", ylabel="Test accuracy (%)")
    time_axes.set(xlabel=since_begin(unit, _are_virtual(groups)), xlim=(0, None))
    waits.set(ylabel="Annotators waited (% of the time)", xlim=(-0.6, len(whole) - 0.4), xticks=[])
    waits.margins(y=0.12)
    waits.set_ylim(bottom=0)
    label_axis(labels_axes)
    for axes in (labels_axes, time_axes, waits):
        axes.yaxis.set_major_formatter(in_percent)
        axes.grid(True)
    handles, labels = labels_axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc=ABOVE, ncols=columns)
    return figure


def _are_virtual(groups: Groups) -> bool:
    """Whether all runs are simulated."""
    return all(run.is_virtual for runs in groups.values() for run in runs)


def _line(axes: Axes, x: Floats, accuracy: Floats, look: dict[str, Any]) -> None:
    """Draws the mean over the runs (runs, n), and a band of one standard deviation around it."""
    mean = accuracy.mean(axis=0)
    axes.plot(x, mean, linewidth=1.2, **look)
    if len(accuracy) > 1:
        deviation = accuracy.std(axis=0, ddof=1)
        band: dict[str, Any] = {"color": look["color"], "alpha": 0.18, "linewidth": 0}
        band["step"] = "post" if "drawstyle" in look else None
        axes.fill_between(x, mean - deviation, mean + deviation, **band)


def _csv(groups: Groups) -> str:
    """Every point of every curve as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("version", "server", "labels", "queries", "test_accuracy", "val_accuracy", "seconds")
    writer.writerow(("group", "run", "seed", *keys))
    for name, runs in groups.items():
        for run in runs:
            rows = ([point[key] for key in keys] for point in run.summary["curve"])
            writer.writerows((name, run.path, run.summary["seed"], *row) for row in rows)
    return text.getvalue()


def _spread(values: Floats, factor: float = 100.0, digits: int = 1) -> str:
    if not values.size:
        return "-"
    deviation = f" ± {factor * values.std(ddof=1):.{digits}f}" if values.size > 1 else ""
    return f"{factor * values.mean():.{digits}f}{deviation}"


def _page(groups: Groups) -> str:
    first = next(iter(groups.values()))[0]
    whole = whole_runs(groups)
    count = sum(map(len, whole.values()))
    results, waits, listed = [], [], []
    for name, runs in groups.items():
        seeds = len({run.summary["seed"] for run in runs})
        final, aubc = values(runs, "final_test_accuracy"), values(runs, "aubc")
        labels = _spread(values(runs, "labels", "total"), 1, 0)
        results.append((name, len(runs), seeds, labels, _spread(final), _spread(aubc, 1, 3)))
    for name, runs in whole.items():
        figures = (_spread(values(runs, "annotator_wait_s", key), 1, 2) for key in ("mean", "p95", "max"))
        waits.append((name, _spread(values(runs, "annotators_waited")), *figures, _spread(values(runs, "wall_s"), 1)))
        listed += [(run.path, name, run.summary["seed"]) for run in runs]
    unit = "virtual s" if _are_virtual(groups) else "s"
    parts = [
        f"# {count} runs compared\n",
        f"Data: {plain_text(first.settings.get('data_type'))}. Every point: [comparison.csv](comparison.csv).\n",
        "![Test accuracy against labels and time; how long annotators waited](comparison.png)\n",
        "Lines are means over the runs of a group, bands one standard deviation. Left: at equal labels. Middle: the "
        "newest model of each run at each moment. Right: the share of their time that annotators waited, a mark for "
        "each run and a bar as high as their mean. [PDF](comparison.pdf)\n",
        markdown_table(("group", "runs", "seeds", "labels", "final accuracy (%)", "AUBC"), results),
        "## Waits of the annotators\n",
        *(
            ["Times of simulated runs are virtual.\n"]
            if unit == "s" and any(run.is_virtual for runs in whole.values() for run in runs)
            else []
        ),
        markdown_table(
            ("group", "waited (%)", *(f"{what} ({unit})" for what in ("mean wait", "p95", "max", "the run took"))),
            waits,
        ),
        "## Test accuracy at equal labels\n",
        _accuracy_table(groups),
        "## What the words mean\n",
        DEFINITIONS,
        "## The runs\n",
        markdown_table(("run", "group", "seed"), listed),
    ]
    return "\n".join(parts)


def _accuracy_table(groups: Groups) -> str:
    """A row for each of some label counts that all runs have, a column for each group."""
    begin, end = common_span([run for runs in groups.values() for run in runs], "labels")
    if end < begin:
        return "The runs have no label counts in common.\n"
    counts = np.unique(np.linspace(begin, end, ROWS).round())
    columns = [at_counts(runs, counts).T for runs in groups.values()]
    rows = [
        (f"{labels:,.0f}", *(_spread(column[number]) for column in columns)) for number, labels in enumerate(counts)
    ]
    return markdown_table(("labels", *groups), rows)
