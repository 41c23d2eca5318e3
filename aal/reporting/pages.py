"""The report of a run: `summary.json`, the pictures, and one Markdown page that holds them."""

import pathlib
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml

from aal.config.errors import UserError
from aal.reporting import plots
from aal.reporting.metrics import Record, column, read, summary_of, write_summary
from aal.reporting.pictures import PICTURES, draw, staleness
from aal.reporting.tables import markdown_table, plain_text
from aal.storage.run_reader import Rows

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
    drawn = draw(record, summary["annotators_waited"])
    try:
        write_summary(run, summary)
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            plots.save(figure, folder / name)
        page.write_text(_page(run.resolve().name, record, summary, drawn), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror or error}") from None
    return page


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
    late = staleness(record)[1]
    rows = [
        ("Labels: initial + bought = total", f"{labels['initial']:,} + {labels['bought']:,} = {labels['total']:,}"),
        ("Trainings", _text(summary["trainings"])),
        ("Final test accuracy", _share(summary["final_test_accuracy"])),
        ("Mean test accuracy of the curve", _share(summary["mean_curve_accuracy"])),
        ("AUBC (0 to 1)", _text(summary["aubc"])),
        ("Labels a second, from first query to last answer", _text(summary["labels_per_s"])),
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


def _networks(summary: dict[str, Any]) -> list[str]:
    """A table of the networks, where a run has several: the figures above mix their models."""
    if "networks" not in summary:
        return []
    keys = ("final_test_accuracy", "mean_curve_accuracy")
    rows = [
        (one["name"], one["trainings"], *(_share(one[key]) for key in keys), _text(one["aubc"]))
        for one in summary["networks"]
    ]
    return [markdown_table(("network", "trainings", "final accuracy", "mean accuracy", "AUBC"), rows)]


def _break(row: dict[str, Any]) -> str:
    why = row["ended"] or "killed"
    return (
        f"Interrupted at {row['stopped_at']:.1f} s ({plain_text(why)}) and resumed; the time between does not count.\n"
    )


def _page(name: str, record: Record, summary: dict[str, Any], drawn: Iterable[str]) -> str:
    meta = record.meta
    kinds = (("Annotator wait", "annotator_wait_s"), ("Query interval", "query_interval_s"))
    spreads = [(title, *map(_text, summary[key].values())) for title, key in kinds]
    validated = any(model["val_accuracy"] is not None for model in record.models)
    epoch = "The validation set chose the epoch of each training." if validated else "No validation set was used."
    software = [(key.removeprefix("version_"), meta[key]) for key in sorted(meta) if key.startswith("version_")]
    parts = [
        f"# Run {plain_text(name)}\n",
        plain_text(
            f"{summary['data_type']}, mode {summary['mode']}, engine {summary['engine']}, seed {summary['seed']}. "
            f"Started: {meta.get('started', '(virtual time)')}. "
            f"Ended: {meta.get('ended', 'not yet, or it was killed')}."
        ),
        "",
        *([VIRTUAL] if summary["engine"] == "simulated" else []),
        *map(_break, record.breaks),
        *([f"**Warning**: {plain_text(meta['warning'])}\n"] if "warning" in meta else []),
        f"The test set was only reported; it chose nothing. {epoch}\n",
        _main_figures(record, summary),
        *_networks(summary),
        markdown_table(("seconds", "mean", "p50", "p95", "p99", "max"), spreads),
        *(f"![{PICTURES[key]}]({key}.png)\n\n{PICTURES[key]} [PDF]({key}.pdf)\n" for key in PICTURES if key in drawn),
        "## What the words mean\n\n" + DEFINITIONS,
        "## Trainings\n\nAccuracies are from 0 to 1, times in seconds since the run began.\n",
        _listed(record.models),
        "## Workers\n",
        _listed(record.workers),
        "## Software and settings\n",
        markdown_table(("", "version"), software),
        f"Hardware: {plain_text(meta.get('hardware', '-'))}\n",
        textwrap.indent(yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True), "    "),
    ]
    return "\n".join(parts)
