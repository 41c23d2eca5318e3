"""What annotators answered: how sure the labels are, who agrees with whom, and what each takes for what."""

from typing import Any

import numpy as np

from aal.aggregation.agreement import krippendorff_alpha, pairs
from aal.reporting.labels import class_name
from aal.reporting.record import Record
from aal.reporting.tables import markdown_table
from aal.reporting.units import percent, rounded
from aal.storage.run_reader import Columns

MOST_PAIRS, MOST_PEOPLE, MOST_MISTAKES = 15, 40, 3

WORDS = """\
Every answer counts that stands: those that were taken back do not, nor do those to known images, which are a check.
An image's label is what its answers come to; a confidence is the share of them that gave it (majority), or how likely
it is (dawid_skene). Kappa (Cohen, 1960) and alpha (Krippendorff, 2011) are agreement beyond chance: 1 is full, 0 what
chance gives.
"""


def votes_of(record: Record) -> Columns:
    """Returns the answers with a label to images that were to be labelled."""
    counted = (record.answers["is_check"] == 0) & ~np.isnan(record.answers["label"])
    return {key: column[counted] for key, column in record.answers.items()}


def answers_summary(record: Record) -> dict[str, Any]:
    """Returns the entry `answers` of the summary.

    - given: answers that stand; `cannot_tell` of them have no label, `checks` are to known images.
    - checks_right: share of these that are right, from 0 to 1; None without any.
    - krippendorff_alpha: agreement on the images with several answers; None where there are none.
    - retired: images that nobody could tell, or that a supervisor has excluded.
    """
    checks = record.answers["is_check"] == 1
    right = record.answers["label"][checks] == record.answers["truth"][checks]
    votes = votes_of(record)
    alpha = krippendorff_alpha(votes["item"].astype(int), votes["label"].astype(int))
    return {
        "given": len(checks),
        "cannot_tell": int(np.isnan(record.answers["label"]).sum()),
        "checks": int(checks.sum()),
        "checks_right": float(right.mean()) if right.size else None,
        "krippendorff_alpha": None if np.isnan(alpha) else alpha,
        "retired": record.retired,
    }


def answers_section(record: Record) -> str:
    """Returns the section of a report; empty where each image has one answer and there was no check."""
    summary, votes = answers_summary(record), votes_of(record)
    number = len(np.unique(votes["item"]))
    if len(votes["item"]) == number and not (summary["checks"] or summary["cannot_tell"] or summary["retired"]):
        return ""
    sure = np.array(list(record.confidences.values()))
    rows = [
        ("Answers", f"{summary['given']:,}"),
        ("To an image, in the mean", rounded(len(votes["item"]) / number if number else None)),
        ("Confidence of the labels, in the mean", rounded(float(sure.mean()) if sure.size else None)),
        ("Labels of a confidence under 0.75", percent(int((sure < 0.75).sum()), sure.size)),
        ("Krippendorff's alpha", rounded(summary["krippendorff_alpha"])),
        ("Answers without a label (cannot tell)", f"{summary['cannot_tell']:,}"),
        ("Images left without a label", f"{summary['retired']:,}"),
    ]
    parts = ["## Answers\n", WORDS, markdown_table(("", "value"), rows), _people(record, votes), _pairs(votes)]
    return "\n".join(part for part in parts if part)


def _people(record: Record, votes: Columns) -> str:
    """A row for each annotator: agreement with the labels, known images, and what is most often taken for what."""
    labels = {int(item): label for item, label in record.labels.items()}
    decided = np.array([labels.get(int(item), -1) for item in votes["item"]])
    checks = record.answers["is_check"] == 1
    rows = []
    for who in np.unique(record.answers["annotator"]).astype(int).tolist():
        mine = votes["annotator"] == who
        same = int((votes["label"][mine] == decided[mine]).sum())
        shown = checks & (record.answers["annotator"] == who)
        right = int((record.answers["label"][shown] == record.answers["truth"][shown]).sum())
        known = f"{right} of {shown.sum()}" if shown.any() else "-"
        mistakes = _mistakes(votes["label"][mine], decided[mine], record.classes)
        rows.append((who, int(mine.sum()), percent(same, int(mine.sum())), known, mistakes))
    rows.sort(key=lambda row: -row[1])
    head = ("annotator", "answers", "as the label", "known images right", "most often, label: answer")
    left = f"\nOf {len(rows):,}, the {MOST_PEOPLE} with most answers.\n" if len(rows) > MOST_PEOPLE else ""
    return markdown_table(head, rows[:MOST_PEOPLE]) + left


def _mistakes(given: np.ndarray, decided: np.ndarray, classes: list[str]) -> str:
    """What somebody most often answers in the place of the label."""
    wrong = (given != decided) & (decided >= 0)
    found, counts = np.unique(np.stack([decided[wrong], given[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_MISTAKES]
    names = [[class_name(int(label), classes) for label in found[:, one]] for one in order]
    return ", ".join(f"{label}: {answer} ({counts[one]})" for (label, answer), one in zip(names, order, strict=True))


def _pairs(votes: Columns) -> str:
    """The pairs of annotators who share most images."""
    columns = (votes[key].astype(int) for key in ("item", "annotator", "label"))
    people = len(np.unique(votes["annotator"]))
    if people > 200:  # a matrix of everybody with everybody says nothing
        return ""
    found = sorted(pairs(*columns), key=lambda pair: -pair.images)
    if not found:
        return ""
    rows = [(one.first, one.second, one.images, percent(one.same), rounded(one.kappa)) for one in found[:MOST_PAIRS]]
    left = f"\nOf {len(found):,} pairs, the {MOST_PAIRS} with most images.\n" if len(found) > MOST_PAIRS else ""
    return markdown_table(("annotator", "and", "images of both", "same answer", "Cohen's kappa"), rows) + left
