"""The pictures of a run, from its record."""

import numpy as np
from matplotlib.figure import Figure

from aal.reporting import plots
from aal.reporting.metrics import Record, column, present
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


def draw(record: Record, waited: float | None) -> dict[str, Figure]:
    """Returns the pictures for which there is something to draw, by their names in PICTURES.

    Args:
        record: of the run.
        waited: which share of their time the annotators waited, from 0 to 1.
    """
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
    offered, answered = staleness(record)
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


def staleness(record: Record) -> tuple[Column, Column]:
    """Returns versions behind the newest: (n,) of all queries when offered, (a,) of the answered ones when answered."""
    versions, published = column(record.models, "version"), column(record.models, "published_at")
    newest = np.searchsorted(published, record.queries["answered_at"][record.answered], "right") - 1
    # Before the first publication the index is -1, the last place: there is no newest version then.
    late = np.append(versions, np.nan)[newest] - record.queries["version"][record.answered]
    return present(record.queries["newest"] - record.queries["version"]), present(late)
