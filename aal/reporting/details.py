"""Tables of a run by annotator and by class."""

from collections.abc import Sequence

import numpy as np

from aal.reporting.pictures import confusion
from aal.reporting.record import Record
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration, percent

MOST_ROWS = 40


def annotators_table(record: Record) -> str:
    """Returns what each annotator did: labels, how many of them are right, seconds for one, the share waited."""
    if not record.annotators:
        return ""
    seconds = record.answers["answered_at"] - record.answers["drawn_at"]
    who = record.answers["annotator"]
    waited = record.waited_by_annotator()
    rows = []
    for row in record.annotators:
        mine = seconds[(who == row["annotator"]) & ~np.isnan(seconds)]
        mean = duration(float(mine.mean()), record.is_virtual) if mine.size else "-"
        share = float(waited[row["annotator"]])
        right = percent(row["right"], row["known"])
        rows.append((row["annotator"], row["labels"], right, mean, "-" if np.isnan(share) else percent(share)))
    head = ("annotator", "labels", "right", "mean time of a label", "waited")
    shown, left = _shortened(rows, [row["known"] - row["right"] for row in record.annotators], "wrong labels")
    return f"## Annotators\n\n{markdown_table(head, shown)}{left}"


def classes_table(record: Record) -> str:
    """Returns for each class the labels bought, how right they are, and how well the final model knows it."""
    if not record.classes:
        return ""
    counts, answers = confusion(record), {row["truth"]: row for row in record.answers_by_class}
    rows, wrong = [], []
    for number, name in enumerate(record.classes):
        bought = answers.get(number, {"labels": 0, "right": 0})
        tested, hits = counts[number].sum(), counts[number, number]
        others = counts[number].copy()
        others[number] = 0
        most = int(others.argmax())
        taken = f"{record.classes[most]} ({others[most]:.0f})" if others[most] else ""
        labelled = percent(bought["right"], bought["labels"])
        rows.append((number, name, bought["labels"], labelled, f"{tested:.0f}", percent(hits, tested), taken))
        wrong.append(tested - hits)
    head = (
        "number",
        "class",
        "labels bought",
        "labelled right",
        "test images",
        "test accuracy",
        "most often taken for",
    )
    shown, left = _shortened(rows, wrong, "mistakes")
    about = "Test accuracy is that of the final model; labels are counted by the true class, where it is known.\n"
    return f"## Classes\n\n{about}\n{markdown_table(head, shown)}{left}"


def _shortened(rows: Sequence[tuple[object, ...]], order: Sequence[float], of: str) -> tuple[list, str]:
    """Returns the rows, or those with the largest of `order` and a sentence that says so."""
    if len(rows) <= MOST_ROWS:
        return list(rows), ""
    first = np.argsort(-np.asarray(order, float), kind="stable")[:MOST_ROWS]
    return [rows[number] for number in first], f"\nOf {len(rows):,}, the {MOST_ROWS} with most {of}.\n"
