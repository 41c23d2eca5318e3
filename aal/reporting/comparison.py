"""Several runs side by side: one picture, every point as CSV, one Markdown page."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aal.config.errors import UserError
from aal.reporting.curves import Floats, at_labels
from aal.reporting.metrics import column, read, summary_of
from aal.reporting.plots import ABOVE, COLOURS, MARKERS, PAGE, STYLE, label_axis, save, time_unit
from aal.reporting.tables import markdown_table
from aal.storage.atomic import write_whole

# Settings that say where and under which name a run was done, not what it does.
IRRELEVANT = {"seed", "name", "data_dir", "prepared_dir", "tensorboard"}
TIMES = 400  # points of a curve against time
DEFINITIONS = """\
Accuracies are test accuracies in percent, as mean ± standard deviation over the runs of a group. *At equal labels*: each
run's curve is a straight line between its models, those with equally many labels counted once with their mean; a group
is drawn where all of its runs have a curve. *Final*: the model trained on most labels. *AUBC*: area under the curve
divided by its span of labels, from 0 to 1. *Waited*: the share of their time that annotators waited for a query.
"""


@dataclass(frozen=True)
class Compared:
    """A run of a comparison.

    Attributes:
        path: its directory.
        settings: its resolved settings, flat: keys with dots.
        summary: as in its `summary.json`.
    """

    path: pathlib.Path
    settings: dict[str, Any]
    summary: dict[str, Any]

    def points(self) -> list[dict[str, Any]]:
        """Returns the points of the curve that have a test accuracy."""
        return [point for point in self.summary["curve"] if point["test_accuracy"] is not None]

    def curve(self, x: str) -> tuple[Floats, Floats]:
        """Returns `labels` or `seconds` (n,) and the test accuracies (n,) of the points."""
        return column(self.points(), x), column(self.points(), "test_accuracy")


Groups = Mapping[str, Sequence[Compared]]


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
    """
    groups = _grouped([_compared(run) for run in runs])
    page = out / "comparison.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(_picture(groups), out / "comparison")
        write_whole(out / "comparison.csv", _points(groups).encode())
        write_whole(page, _page(groups).encode())
    except OSError as error:
        raise UserError(f"{out}: the comparison cannot be written: {error.strerror or error}") from None
    return page


def _compared(path: pathlib.Path) -> Compared:
    record = read(path)
    run = Compared(path, dict(_flat(record.config)), summary_of(record))
    if not run.points():
        raise UserError(f"{path}: has no model with a test accuracy yet, so there is no curve to compare")
    return run


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _grouped(runs: Sequence[Compared]) -> dict[str, list[Compared]]:
    """The runs by the settings in which they differ, in the order in which they were given."""
    sets = {str(run.settings.get("data_type")): run.path for run in runs}
    if len(sets) > 1:
        found = ", ".join(f"{name} ({path})" for name, path in sets.items())
        raise UserError(f"runs of different data sets cannot be compared: {found}")
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in IRRELEVANT)
    differing = [key for key in keys if len({_shown(run.settings.get(key)) for run in runs}) > 1]
    groups: dict[str, list[Compared]] = {}
    for run in runs:
        name = ", ".join(f"{key}={_shown(run.settings.get(key))}" for key in differing)
        groups.setdefault(name or "all runs", []).append(run)
    return groups


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _common(runs: Sequence[Compared], x: str) -> tuple[float, float]:
    """Where all runs of a group have a curve: from the last beginning to the first end; one point may be all."""
    begin = max(run.curve(x)[0].min() for run in runs)
    return begin, max(begin, min(run.curve(x)[0].max() for run in runs))


def _by_labels(runs: Sequence[Compared]) -> tuple[Floats, Floats]:
    """Label counts (n,) and the accuracies (runs, n) at these; none where the runs have no label count in common."""
    begin, end = _common(runs, "labels")
    runs = [run for run in runs if run.curve("labels")[0].max() >= begin]
    counts = np.unique(np.concatenate([run.curve("labels")[0] for run in runs]))
    counts = counts[(counts >= begin) & (counts <= end)]
    return counts, np.array([at_labels(*run.curve("labels"), counts) for run in runs])


def _by_time(runs: Sequence[Compared]) -> tuple[Floats, Floats]:
    """Seconds (n,) and the accuracies (runs, n) of each run's newest model at these moments."""
    times = np.linspace(*_common(runs, "seconds"), TIMES)
    newest = []
    for run in runs:
        seconds, accuracy = run.curve("seconds")
        newest.append(accuracy[np.searchsorted(seconds, times, "right") - 1])
    return times, np.array(newest)


@mpl.rc_context(STYLE)
def _picture(groups: Groups) -> Figure:
    """Accuracy against labels and against time, and the share that annotators waited; a colour for each group."""
    names = max(map(len, groups))
    columns = max(1, min(len(groups), 110 // (names + 6)))
    figure = Figure(figsize=(PAGE, 2.5 + 0.16 * -(-len(groups) // columns)))
    by_labels, by_time, waits = figure.subplots(1, 3, width_ratios=(3, 3, 1.4))
    scale, unit = time_unit(max(run.curve("seconds")[0].max() for runs in groups.values() for run in runs))
    for number, (name, runs) in enumerate(groups.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "label": name}
        marker = MARKERS[number % len(MARKERS)]
        counts, accuracy = _by_labels(runs)
        _line(by_labels, counts, accuracy, {**look, "marker": marker, "markersize": 3})
        times, accuracy = _by_time(runs)
        _line(by_time, times / scale, accuracy, {**look, "drawstyle": "steps-post"})
        shares = _values(runs, "annotators_waited")
        waits.plot(np.full(shares.size, number), shares, marker, color=look["color"], markersize=4, alpha=0.6)
        if shares.size:
            waits.plot([number - 0.3, number + 0.3], [shares.mean()] * 2, color=look["color"], linewidth=2)
    by_labels.set(xlabel="Labels in the training set", ylabel="Test accuracy (%)")
    by_time.set(xlabel=f"Time since the run began ({unit})", xlim=(0, None))
    waits.set(ylabel="Annotators waited (%)", xlim=(-0.6, len(groups) - 0.4), xticks=[], ylim=(0, None))
    label_axis(by_labels)
    for axes in (by_labels, by_time, waits):
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
        axes.grid(True)
    handles, labels = by_labels.get_legend_handles_labels()
    figure.legend(handles, labels, loc=ABOVE, ncols=columns)
    return figure


def _line(axes: Axes, x: Floats, accuracy: Floats, look: dict[str, Any]) -> None:
    """Draws the mean over the runs (runs, n), and a band of one standard deviation around it."""
    mean = accuracy.mean(axis=0)
    axes.plot(x, mean, linewidth=1.2, **look)
    if len(accuracy) > 1:
        deviation = accuracy.std(axis=0, ddof=1)
        step = "post" if "drawstyle" in look else None
        band: dict[str, Any] = {"color": look["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(x, mean - deviation, mean + deviation, step=step, **band)


def _values(runs: Sequence[Compared], key: str) -> Floats:
    """A figure of the summaries, of those runs that have it."""
    return np.array([run.summary[key] for run in runs if run.summary[key] is not None], dtype=float)


def _points(groups: Groups) -> str:
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
    count = sum(map(len, groups.values()))
    results, waits, listed = [], [], []
    for name, runs in groups.items():
        seeds = len({run.summary["seed"] for run in runs})
        final, aubc = _values(runs, "final_test_accuracy"), _values(runs, "aubc")
        bought = np.array([run.summary["labels"]["total"] for run in runs], float)
        results.append((name, len(runs), seeds, _spread(bought, 1, 0), _spread(final), _spread(aubc, 1, 3)))
        wait = {key: [run.summary["annotator_wait_s"][key] for run in runs] for key in ("mean", "p95", "max")}
        figures = (_spread(np.array([v for v in column if v is not None], float), 1, 2) for column in wait.values())
        waits.append((name, _spread(_values(runs, "annotators_waited")), *figures, _spread(_values(runs, "wall_s"), 1)))
        listed += [(run.path, name, run.summary["seed"]) for run in runs]
    grids = [_accuracy_table(name, runs) for name, runs in groups.items()]
    parts = [
        f"# {count} runs compared\n",
        f"Data: {first.settings.get('data_type')}. Every point: [comparison.csv](comparison.csv).\n",
        "![Test accuracy against labels and time; how long annotators waited](comparison.png)\n",
        "Lines are means over the runs of a group, bands one standard deviation. Left: at equal labels. Middle: the "
        "newest model of each run at each moment. Right: the share of their time that annotators waited, a mark for "
        "each run and a bar for their mean. [PDF](comparison.pdf)\n",
        markdown_table(("group", "runs", "seeds", "labels", "final accuracy (%)", "AUBC"), results),
        "## Waits of the annotators\n",
        markdown_table(("group", "waited (%)", "mean wait (s)", "p95 (s)", "max (s)", "the run took (s)"), waits),
        "## Test accuracy at equal labels\n",
        *grids,
        "## What the words mean\n",
        DEFINITIONS,
        "## The runs\n",
        markdown_table(("run", "group", "seed"), listed),
    ]
    return "\n".join(parts)


def _accuracy_table(name: str, runs: Sequence[Compared]) -> str:
    counts, accuracy = _by_labels(runs)
    rows = [(f"{labels:,.0f}", _spread(column)) for labels, column in zip(counts, accuracy.T, strict=True)]
    return f"{name}:\n\n{markdown_table(('labels', 'accuracy (%)'), rows)}"
