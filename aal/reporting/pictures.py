"""The pictures of a run, from its record."""

import numpy as np
from matplotlib.figure import Figure

from aal.coordination.interval import interval, interval_of_few
from aal.reporting import client_plots, labelling_plots, plots, training_plots
from aal.reporting.confusions import confusions, most_active
from aal.reporting.freshness import when_answered, when_offered
from aal.reporting.record import Record, column
from aal.reporting.targets import mean_curve
from aal.reporting.timeline import Spans, timeline
from aal.storage.run_reader import Column, Rows

PICTURES = {
    "accuracy_by_labels": "Test accuracy against labels. The line is the mean of the models with equally many labels "
    "(of several networks, one line each); a band, where there is one, is the 95 % interval that so few test images "
    "leave.",
    "targets": "Test accuracy against labels: the mean over the targets, and one standard deviation to both sides.",
    "accuracy_by_time": "Test accuracy against time. The line is the newest model at each moment (of several networks, "
    "one line each).",
    "clients": "Which images are whose: a circle has the area of a client's images of a class, labelled ones within.",
    "timeline": "Who did what when. Two tones only keep neighbours apart; a bar too short to be seen is drawn wider.",
    "waits": "How long annotators waited for a query. Left: the share of its time that each waited. Right: the share "
    "of draws whose wait was longer than so many seconds.",
    "staleness": "How many versions the model that chose a query was behind the newest one.",
    "query_pool": "How many queries waited in S, and the mark at which the next selection is due: what annotators draw "
    "meanwhile, and a safety.",
    "epochs": "The epochs of all trainings: loss on the training images, accuracy on the validation images in the "
    "precision of the training. The later the version, the darker the line.",
    "confusion": "What the final model took the test images for; right answers in grey.",
    "annotators_confusion": "What the annotators with most answers take for what; what agrees in grey.",
}


def draw(record: Record) -> dict[str, Figure]:
    """Returns the pictures for which there is something to draw, by their names in PICTURES."""
    drawn = {}
    breaks, virtual = [row["stopped_at"] for row in record.breaks], record.is_virtual
    waited, shares = record.waited, record.waited_by_annotator()
    tested = [model for model in record.models if model["test_accuracy"] is not None]
    if tested:
        labels, seconds = column(tested, "labels"), column(tested, "published_at")
        points, band = (
            (column(tested, "test_accuracy"), _series(tested), labels <= record.initial),
            _band(record, tested),
        )
        drawn["accuracy_by_labels"] = plots.accuracy_by_labels(labels, *points, band)
        drawn["accuracy_by_time"] = plots.accuracy_by_time(seconds, *points, breaks, virtual, band)
    if record.lineages and (curve := mean_curve(record))[0].size:
        drawn["targets"] = plots.mean_over_targets(*curve)
    if record.waits["got_at"].size:
        seconds = record.waits["got_at"] - record.waits["asked_at"]
        drawn["waits"] = labelling_plots.waits(seconds, np.nan_to_num(shares), waited, virtual)
    offered, (answered, _) = when_offered(record), when_answered(record)
    if np.unique(np.concatenate([offered, answered])).size > 1:  # or else a sentence says as much
        drawn["staleness"] = labelling_plots.staleness(offered, answered)
    if record.grants:
        marks = (column(record.grants, "granted_at"), column(record.grants, "mark"))
        changes = record.pool_changes
        drawn["query_pool"] = labelling_plots.query_pool(changes["at"], changes["change"].cumsum(), *marks, virtual)
    if record.epochs["epoch"].size:
        drawn["epochs"] = training_plots.epochs(**record.epochs)
    if record.confusion and len(record.classes) <= training_plots.MOST_CLASSES:
        drawn["confusion"] = training_plots.confusion(confusion(record), record.classes)
    pairs = confusions(record)
    if len(pairs) and 0 < len(record.classes) <= training_plots.MOST_CLASSES:
        people = most_active(pairs, len(record.classes))
        drawn["annotators_confusion"] = labelling_plots.confusions(people, record.classes)
    if record.clients:
        drawn["clients"] = client_plots.clients(*images_of_clients(record), record.classes)
    chosen = record.selections
    trainings = Spans(*(column(record.models, key) for key in ("server", "started_at", "published_at")))
    spans = (
        Spans(*record.local_trainings.values()) if record.local_trainings else trainings,
        Spans(chosen["worker"], chosen["started_at"], chosen["offered_at"]),
        Spans(*(record.answers[key] for key in ("annotator", "drawn_at", "answered_at"))),
    )
    if any(span.end.size for span in spans):
        number = (record.config.get("annotators") or {}).get("number", 0)
        annotators = max(number, np.unique(spans[2].lane).size)
        is_federated = bool(record.local_trainings)
        drawn["timeline"] = timeline(*spans, annotators, breaks, waited, np.nan_to_num(shares), virtual, is_federated)
    return drawn


def _band(record: Record, tested: Rows) -> plots.Band | None:
    """The intervals of the accuracies, where some of them are of few images."""
    accuracies = [(model["test_accuracy"], record.test_images.get(model["version"], 0)) for model in tested]
    if not any(interval_of_few(*one) for one in accuracies):
        return None
    ends = np.array([interval(*one) if one[1] else (one[0], one[0]) for one in accuracies])
    return ends[:, 0], ends[:, 1]


def confusion(record: Record) -> Column:
    """Returns how many test images of each class (row) the final model took for each class (column)."""
    counts = np.zeros((len(record.classes), len(record.classes)))
    for pair in record.confusion:
        counts[pair["truth"], pair["predicted"]] = pair["images"]
    return counts


def images_of_clients(record: Record) -> tuple[Column, Column]:
    """Returns how many images each client (row) has of each class (column), and how many of these are labelled."""
    place = tuple(column(record.clients, key).astype(int) for key in ("client", "truth"))
    tables = np.zeros((2, place[0].max() + 1, len(record.classes)))
    for table, key in zip(tables, ("images", "labelled"), strict=True):
        table[place] = column(record.clients, key)
    return tables[0], tables[1]


def _series(tested: Rows) -> plots.Series:
    """What the points of a curve belong to: the networks where a run has several, or else the servers."""
    networks = [model["model"] for model in tested]
    if len(set(networks)) > 1:
        return plots.Series(networks, are_networks=True)
    return plots.Series([f"server {model['server']}" for model in tested], are_networks=False)
