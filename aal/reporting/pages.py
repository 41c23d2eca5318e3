"""The report of a run: `summary.json`, the pictures, and one Markdown page that holds them."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from aal.config.errors import UserError
from aal.reporting import plots
from aal.reporting.metrics import Record, column, present, read, summary_of, write_summary
from aal.reporting.tables import markdown_table
from aal.reporting.timeline import Spans, timeline
from aal.storage.run_reader import Column, Rows

PICTURES = {
    "accuracy_by_labels": "Test accuracy against labels. The line is the mean of the models with equally many labels "
    "(of several networks, one line each).",
    "accuracy_by_time": "Test accuracy against time. The line is the newest model at each moment (of several networks, "
    "one line each).",
    "waits": "How long annotators waited for a query, shorter than 1 ms drawn as 1 ms; the title says which share of "
    "their time that was.",
    "staleness": "How many versions the model that chose a query was behind the newest one.",
    "timeline": "Who did what when.",
}
VIRTUAL = "All times are virtual: they follow from the costs in the settings below, not from this machine's speed.\n"
DEFINITIONS = """\
- *Curve*: the published models in order of version. *Final* is the one trained on most labels; of several, the newest.
- *AUBC*: area under test accuracy against labels (trapezoids; equally many labels count once, with their mean),
  divided by the span of labels, so from 0 to 1.
- *Annotator wait*: from asking for a query to having one, over all draws.
- *Query interval*: time between two consecutive batches offered by the same worker, over all workers.
- *Staleness*: the newest version minus the version that chose the query; when it was offered (this is the one in
  `summary.json`), and when it was answered.
- *Labels a second*: labels bought, divided by the time from the first offer to the last answer.
- *Labels during training*: answers that came while at least one model was in training.
- *Servers trained*: the time from start to publication of all trainings, divided by servers times wall time.
- *Annotators waited*: all waits, divided by all waits and all times from draw to answer.
- *Wall time*: what the run took. All times are seconds since it began.
"""


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes `summary.json` and `report/` of a run, even if it was interrupted or failed; returns the Markdown page.

    Raises:
        UserError: the folder holds no readable run, or the report cannot be written.
    """
    record = read(run)
    summary = summary_of(record)
    folder = run / "report"
    page = folder / "report.md"
    drawn = _pictures(record, summary["annotators_waited"])
    try:
        write_summary(run, summary)
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            plots.save(figure, folder / name)
        page.write_text(_page(run.resolve().name, record, summary, drawn), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror or error}") from None
    return page


def _pictures(record: Record, waited: float | None) -> dict[str, Figure]:
    """The pictures for which there is something to draw."""
    drawn = {}
    breaks = [row["stopped_at"] for row in record.breaks]
    tested = [model for model in record.models if model["test_accuracy"] is not None]
    if tested:
        labels, seconds = column(tested, "labels"), column(tested, "published_at")
        points = (column(tested, "test_accuracy"), _series(tested), labels <= record.initial)
        drawn["accuracy_by_labels"] = plots.accuracy_by_labels(labels, *points)
        drawn["accuracy_by_time"] = plots.accuracy_by_time(seconds, *points, breaks)
    if record.waits["got_at"].size:
        drawn["waits"] = plots.waits(record.waits["got_at"] - record.waits["asked_at"], waited)
    offered, answered = _staleness(record)
    if offered.size:
        drawn["staleness"] = plots.staleness(offered, answered)
    chosen, done = record.selections, record.answered
    spans = (
        Spans(*(column(record.models, key) for key in ("server", "started_at", "published_at"))),
        Spans(chosen["worker"], chosen["started_at"], chosen["offered_at"]),
        Spans(*(record.queries[key][done] for key in ("annotator", "drawn_at", "answered_at"))),
    )
    if any(span.end.size for span in spans):
        number = (record.config.get("annotators") or {}).get("number", 0)
        drawn["timeline"] = timeline(*spans, max(number, np.unique(spans[2].lane).size), breaks, waited)
    return drawn


def _series(tested: Rows) -> plots.Series:
    """What the points of a curve belong to: the networks where a run has several, or else the servers."""
    networks = [model["model"] for model in tested]
    if len(set(networks)) > 1:
        return plots.Series(networks, are_networks=True)
    return plots.Series([f"server {model['server']}" for model in tested], are_networks=False)


def _staleness(record: Record) -> tuple[Column, Column]:
    """Versions behind the newest: of all queries when offered, of the answered ones when answered."""
    versions, published = column(record.models, "version"), column(record.models, "published_at")
    newest = np.searchsorted(published, record.queries["answered_at"][record.answered], "right") - 1
    # Before the first publication the index is -1, the last place: there is no newest version then.
    late = np.append(versions, np.nan)[newest] - record.queries["version"][record.answered]
    return present(record.queries["newest"] - record.queries["version"]), present(late)


def _during_training(record: Record) -> int:
    answered = record.queries["answered_at"][record.answered]
    during = np.zeros(answered.size, dtype=bool)
    for model in record.models:
        during |= (model["started_at"] < answered) & (answered < model["published_at"])
    return int(during.sum())


def _text(value: Any, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        value = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value}{unit}".replace("\n", " ")


def _listed(rows: Rows) -> str:
    return markdown_table(list(rows[0]), (map(_text, row.values()) for row in rows)) if rows else "None.\n"


def _share(part: float | None, whole: float = 1.0) -> str:
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"


def _main_figures(record: Record, summary: dict[str, Any]) -> str:
    labels = summary["labels"]
    during = _during_training(record)
    trained = (column(record.models, "published_at") - column(record.models, "started_at")).sum()
    sync = record.config.get("mode") == "sync"  # which trains one model at a time
    servers = 1 if sync else record.config.get("server_num") or len({model["server"] for model in record.models})
    late = _staleness(record)[1]
    rows = [
        ("Labels: initial + bought = total", f"{labels['initial']:,} + {labels['bought']:,} = {labels['total']:,}"),
        ("Trainings", _text(summary["trainings"])),
        ("Final test accuracy", _share(summary["final_test_accuracy"])),
        ("Mean test accuracy of the curve", _share(summary["mean_curve_accuracy"])),
        ("AUBC (0 to 1)", _text(summary["aubc"])),
        ("Labels a second", _text(summary["labels_per_s"])),
        ("Wrong labels", f"{record.label_errors:,} ({_share(record.label_errors, labels['bought'])})"),
        ("Draws that brought no answer", f"{max(0, record.waits['got_at'].size - labels['bought']):,}"),
        ("Images that could not be read", _text(record.meta.get("skipped_images"))),
        ("Labels during training", f"{during:,} ({_share(during, labels['bought'])})"),
        ("Servers trained", _share(trained, servers * (summary["wall_s"] or 0))),
        ("Annotators waited", _share(summary["annotators_waited"])),
        ("Staleness when offered, versions", "mean {}, max {}".format(*map(_text, summary["staleness"].values()))),
        ("Staleness when answered, versions", f"mean {late.mean():.3g}, max {late.max():.0f}" if late.size else "-"),
        ("Wall time", _text(summary["wall_s"], " s")),
    ]
    return markdown_table(("", "value"), rows)


def _break(row: dict[str, Any]) -> str:
    why = row["ended"] or "killed"
    return f"It was broken off at {row['stopped_at']:.1f} s ({why}) and resumed; the clock stood still meanwhile.\n"


def _page(name: str, record: Record, summary: dict[str, Any], drawn: Iterable[str]) -> str:
    meta = record.meta
    kinds = (("Annotator wait", "annotator_wait_s"), ("Query interval", "query_interval_s"))
    spreads = [(title, *map(_text, summary[key].values())) for title, key in kinds]
    validated = any(model["val_accuracy"] is not None for model in record.models)
    epoch = "The validation set chose the epoch of each training." if validated else "No validation set was used."
    software = [(key.removeprefix("version_"), meta[key]) for key in sorted(meta) if key.startswith("version_")]
    parts = [
        f"# Run {name}\n",
        f"{summary['data_type']}, mode {summary['mode']}, engine {summary['engine']}, seed {summary['seed']}. "
        f"Started: {_text(meta.get('started', '(virtual time)'))}. "
        f"Ended: {_text(meta.get('ended', 'not yet, or it was killed'))}.\n",
        *([VIRTUAL] if summary["engine"] == "simulated" else []),
        *map(_break, record.breaks),
        f"The test set was only reported; it chose nothing. {epoch}\n",
        _main_figures(record, summary),
        markdown_table(("seconds", "mean", "p50", "p95", "p99", "max"), spreads),
        *(f"![{PICTURES[key]}]({key}.png)\n\n{PICTURES[key]} [PDF]({key}.pdf)\n" for key in PICTURES if key in drawn),
        "## What the words mean\n\n" + DEFINITIONS,
        "## Trainings\n\nAccuracies are from 0 to 1, times in seconds since the run began.\n",
        _listed(record.models),
        "## Workers\n",
        _listed(record.workers),
        "## Software and settings\n",
        markdown_table(("", "version"), software),
        f"Hardware: {_text(meta.get('hardware'))}\n",
        f"```yaml\n{yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True)}```\n",
    ]
    return "\n".join(parts)
