"""The table of figures that a report begins with."""

from typing import Any

import numpy as np

from aal.coordination.interval import interval
from aal.reporting.freshness import when_answered
from aal.reporting.record import Record, column, final_model
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration, percent, rounded
from aal.reporting.words import final_labels
from aal.storage.run_reader import Column


def _during_training(record: Record) -> int:
    answered = record.queries["answered_at"][record.answered]
    during = np.zeros(answered.size, dtype=bool)
    for model in record.models:
        during |= (model["started_at"] < answered) & (answered < model["published_at"])
    return int(during.sum())


def main_figures(record: Record, summary: dict[str, Any]) -> str:
    """Returns the table of the figures of a run, above all others on its page."""
    labels = summary["labels"]
    during = _during_training(record)
    trained = (column(record.models, "published_at") - column(record.models, "started_at")).sum()
    sync = record.config.get("mode") == "sync"  # which trains one model at a time
    servers = 1 if sync else record.config.get("server_num") or len({model["server"] for model in record.models})
    late, seconds = when_answered(record)
    virtual, mixed = record.is_virtual, "networks" in summary or "targets" in summary
    bound = record.config.get("max_staleness")
    rows = [
        ("Labels: initial + bought = total", f"{labels['initial']:,} + {labels['bought']:,} = {labels['total']:,}"),
        ("Trainings", rounded(summary["trainings"])),
        _final_accuracy(record, summary),
        *(() if mixed else _of_one_curve(summary)),  # a mean over networks would say nothing
        (f"Labels per {'virtual ' * virtual}second", rounded(summary["labels_per_s"])),
        ("Wrong labels", f"{record.label_errors:,} ({percent(record.label_errors, labels['bought'])})"),
        ("Draws that brought no answer", f"{max(0, record.waits['got_at'].size - summary['answers']['given']):,}"),
        ("Images that could not be read", rounded(record.meta.get("skipped_images"))),
        ("Labels during training", f"{during:,} ({percent(during, labels['bought'])})"),
        ("Servers trained", percent(trained, servers * (summary["wall_s"] or 0))),
        ("Annotators waited", percent(summary["annotators_waited"])),
        *([] if bound == "auto" else [_rounds_ahead(bound, summary)]),
        ("Staleness when offered, versions", "mean {}, max {}".format(*map(rounded, summary["staleness"].values()))),
        ("Staleness when answered, versions", f"mean {late.mean():.3g}, max {late.max():.0f}" if late.size else "-"),
        ("Staleness when answered", _mean_and_max(seconds, virtual)),
        ("Virtual time" if virtual else "Wall time", duration(summary["wall_s"], virtual)),
    ]
    return markdown_table(("", "value"), rows)


def _rounds_ahead(bound: int | None, summary: dict[str, Any]) -> tuple[str, str]:
    found = "mean {}, max {}".format(*map(rounded, summary["rounds_ahead"].values()))
    return f"Rounds ahead (max_staleness {'null' if bound is None else bound})", found


def _mean_and_max(seconds: Column, virtual: bool) -> str:
    if not seconds.size:
        return "-"
    return f"mean {duration(float(seconds.mean()), virtual)}, max {duration(float(seconds.max()), virtual)}"


def _of_one_curve(summary: dict[str, Any]) -> list[tuple[str, str]]:
    mean, area = percent(summary["mean_curve_accuracy"]), rounded(summary["aubc"])
    return [("Mean test accuracy of the curve", mean), ("AUBC (0 to 1)", area)]


def _final_accuracy(record: Record, summary: dict[str, Any]) -> tuple[str, str]:
    fewer, accuracy = final_labels(summary), percent(summary["final_test_accuracy"])
    of_fewer = f" (of the model of {fewer:,} labels)" if fewer else ""
    if "targets" in summary:
        std = summary["target_std"]["final_test_accuracy"]
        return f"Final test accuracy, mean of {len(summary['targets'])} targets", f"{accuracy} ± {percent(std)}"
    name = f" ({_final_network(record)})" if "networks" in summary else ""
    return f"Final test accuracy{name}", f"{accuracy}{of_fewer}{_interval(record)}"


def _interval(record: Record) -> str:
    """The 95 % interval of the final accuracy that the number of test images leaves; empty of none."""
    tested = sum(row["images"] for row in record.confusion)
    if not tested:
        return ""
    right = sum(row["images"] for row in record.confusion if row["truth"] == row["predicted"])
    low, high = interval(right / tested, tested)
    return f" [{100 * low:.1f}, {100 * high:.1f}] of {tested:,} test images"


def _final_network(record: Record) -> str:
    final = final_model([model for model in record.models if model["test_accuracy"] is not None])
    return str(final["model"]) if final else ""
