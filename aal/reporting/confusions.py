"""What each annotator takes for what: of all as a CSV file, of those with most answers as a picture."""

import csv
import io

import numpy as np
import numpy.typing as npt

from aal.reporting.labels import class_name
from aal.reporting.record import Record

FILE = "annotators_confusion.csv"
MOST_DRAWN = 6

Pairs = npt.NDArray[np.int64]

ABOUT = f"""\
## What each annotator takes for what

An answer is compared with the label that all answers to its image came to, of a known image with its true label.
[{FILE}]({FILE}) has a row for each annotator, label and answer that occur.
"""


def confusions(record: Record) -> Pairs:
    """Returns annotator, label, answer and number of images, (n, 4), of each that occur; none where all answers agree.

    The label is what all answers to an image came to, of a known image its true one.
    """
    answers = record.answers
    known = [int(item) for item in record.labels]
    order = np.argsort(known)
    ids, labels = np.array(known, float)[order], np.array(list(record.labels.values()), float)[order]
    right = np.where(answers["is_check"] == 1, answers["truth"], np.nan)
    if len(ids):
        at = np.minimum(np.searchsorted(ids, answers["item"]), len(ids) - 1)
        right = np.where((answers["is_check"] == 0) & (ids[at] == answers["item"]), labels[at], right)
    counted = ~np.isnan(right) & ~np.isnan(answers["label"])
    columns = np.stack([answers["annotator"], right, answers["label"]])[:, counted].astype(np.int64)
    if (columns[1] == columns[2]).all():
        return np.empty((0, 4), np.int64)
    found, images = np.unique(columns, axis=1, return_counts=True)
    return np.concatenate([found, images[None]]).T


def confusion_file(pairs: Pairs, classes: list[str]) -> bytes:
    """Returns what FILE holds, for these pairs of all annotators."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["annotator", "label", "answer", "images"])
    for who, label, answer, images in pairs.tolist():
        writer.writerow([who, class_name(label, classes), class_name(answer, classes), images])
    return text.getvalue().encode()


def most_active(pairs: Pairs, classes: int) -> dict[str, npt.NDArray[np.float64]]:
    """Returns a title and how often each label (row) got each answer (column), of those who answered most."""
    people, which = np.unique(pairs[:, 0], return_inverse=True)
    answers = np.bincount(which, pairs[:, 3])
    found = {}
    for place in np.argsort(-answers, kind="stable")[:MOST_DRAWN].tolist():
        counts = np.zeros((classes, classes))
        mine = pairs[which == place]
        counts[mine[:, 1], mine[:, 2]] = mine[:, 3]
        found[f"Annotator {people[place]}, {answers[place]:,.0f} answers"] = counts
    return found
