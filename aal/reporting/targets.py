"""The figures of a run with several target models: of each, and their means."""

from collections.abc import Callable
from typing import Any

import numpy as np

from aal.reporting.curves import Floats, at_labels
from aal.reporting.record import Record, column
from aal.reporting.tables import markdown_table, plain_text
from aal.reporting.units import percent, rounded
from aal.storage.run_reader import Rows

Figures = dict[str, float | None]
MEANS = ("final_test_accuracy", "mean_curve_accuracy", "aubc")


def of_targets(record: Record, curve: Rows, figures: Callable[[Rows], Figures]) -> dict[str, Any]:
    """Returns what a summary says of target models; nothing where the run has none.

    - targets: name, trainings, curve, its figures and staleness of each target, in the order of the settings.
      *Staleness*: the versions of this target that were newer than the one that chose a query, when it was offered.
    - final_test_accuracy, mean_curve_accuracy, aubc: the means over the targets; null while one of them has none.
    - target_std: the standard deviations of these over the targets (of the whole set: divided by their number).
    - staleness: mean and maximum over the targets.
    """
    settings = record.config.get("targets")
    if not settings:
        return {}
    targets = []
    for number, target in enumerate(settings):
        own = [point for point in curve if record.lineages.get(point["version"]) == number]
        stale = {"staleness": _staleness(record, number)}
        targets.append({"name": target["name"], "trainings": len(own), "curve": own, **figures(own), **stale})
    columns = {key: [target[key] for target in targets] for key in MEANS}
    known = {key: None if None in values else np.array(values, float) for key, values in columns.items()}
    means = [target["staleness"]["mean"] for target in targets if target["staleness"]["mean"] is not None]
    return {
        **{key: None if values is None else float(values.mean()) for key, values in known.items()},
        "target_std": {key: None if values is None else float(values.std()) for key, values in known.items()},
        "staleness": {
            "mean": float(np.mean(means)) if means else None,
            "max": max((target["staleness"]["max"] or 0 for target in targets), default=None) if means else None,
        },
        "targets": targets,
    }


def targets_table(summary: dict[str, Any]) -> list[str]:
    """Returns a table of the targets with mean and deviation, where a run has several."""
    if "targets" not in summary:
        return []
    rows = [
        (
            plain_text(target["name"]),
            rounded(target["trainings"]),
            *(percent(target[key]) for key in MEANS[:2]),
            *(rounded(target["staleness"][key]) for key in ("mean", "max")),
        )
        for target in summary["targets"]
    ]
    means = ("mean", "", *(percent(summary[key]) for key in MEANS[:2]), rounded(summary["staleness"]["mean"]), "")
    deviations = ("standard deviation", "", *(percent(summary["target_std"][key]) for key in MEANS[:2]), "", "")
    head = ("target", "versions", "final accuracy", "mean accuracy", "staleness, mean", "staleness, max")
    about = (
        "Staleness of a target: its own versions that were newer than the one that chose a query, when it was offered."
    )
    return [markdown_table(head, [*rows, means, deviations]), f"{about}\n"]


def mean_curve(record: Record) -> tuple[Floats, Floats, Floats]:
    """Returns label counts (u,), mean and standard deviation (u,) of the targets' test accuracies at these.

    The counts are those of all curves within what each of them spans; between its points a curve is straight.
    """
    tested = [model for model in record.models if model["test_accuracy"] is not None]
    targets = range(len(record.config["targets"]))
    curves = [[model for model in tested if record.lineages[model["version"]] == target] for target in targets]
    if not all(curves):
        return np.array([]), np.array([]), np.array([])
    ends = [(min(labels), max(labels)) for labels in (column(curve, "labels") for curve in curves)]
    first, last = max(low for low, _ in ends), min(high for _, high in ends)
    at = np.unique(np.concatenate([column(curve, "labels") for curve in curves]))
    at = at[(at >= first) & (at <= last)]
    found = np.array([at_labels(column(one, "labels"), column(one, "test_accuracy"), at) for one in curves])
    return at, found.mean(axis=0), found.std(axis=0)


def _staleness(record: Record, target: int) -> dict[str, Any]:
    """Mean and maximum over all offered queries that this target's models helped to choose."""
    versions = np.array(sorted(version for version, its in record.lineages.items() if its == target))
    published = {model["version"]: model["published_at"] for model in record.models}
    at = np.array([published[version] for version in versions])
    stale: list[int] = []
    weights: list[int] = []
    for selection in record.selected_with:
        used = [version for version in selection["versions"] if record.lineages.get(version) == target]
        if used:
            newest = np.searchsorted(at, selection["offered_at"], "right")
            stale.append(max(0, int(newest - np.searchsorted(versions, used[0], "right"))))
            weights.append(selection["items"])
    if not stale:
        return {"mean": None, "max": None}
    return {"mean": float(np.average(stale, weights=weights)), "max": max(stale)}
