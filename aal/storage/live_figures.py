"""What the pages of a run show of its record while it goes on."""

import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.storage.run_reader import RunReader

Rows = list[dict[str, Any]]

CURVE = """SELECT version, server, target, labels, val_accuracy, test_accuracy, started_at, published_at,
        coalesce(images, 0) AS test_images
    FROM models LEFT JOIN (SELECT version, sum(images) AS images FROM confusion GROUP BY version) USING (version)
    WHERE published_at IS NOT NULL ORDER BY version"""
# What each said of how many images; `recent` is that of the last ten minutes, `first_at` the first of it.
ANNOTATORS = """SELECT annotator, count(*) AS labels, max(answered_at) AS last_at,
        sum(answered_at > ?1 - 600) AS recent, min(iif(answered_at > ?1 - 600, answered_at, NULL)) AS first_at
    FROM standing_answers GROUP BY annotator ORDER BY annotator"""
WAITED = "SELECT annotator, sum(got_at - asked_at) AS waited_s, count(*) AS draws FROM waits GROUP BY annotator"
STALENESS = """SELECT avg(newest - version) AS mean, max(newest - version) AS max FROM
    (SELECT newest, version FROM offers WHERE version IS NOT NULL ORDER BY rowid DESC LIMIT 200)"""
LATEST_JOB = "SELECT coalesce(max(labels), 0) AS labels FROM jobs"
OF_CLASS = """SELECT item FROM (
        SELECT item, arrival FROM labels WHERE label = ?1
        UNION ALL SELECT item, -1 FROM examples WHERE part = 'initial' AND truth = ?1)
    ORDER BY arrival DESC, item LIMIT ?2"""
COMPARED = """SELECT item, annotator, label FROM standing_answers WHERE label IS NOT NULL
    ORDER BY arrival DESC LIMIT 20000"""
ANSWER = "SELECT coalesce(label, -1) AS label FROM standing_answers WHERE item = ?1 AND annotator = ?2"


@dataclass(frozen=True)
class LiveFigures:
    """One moment of a run's record.

    Attributes:
        curve: a row for each model, in order of version.
        annotators: a row for each that has answered: labels, those of the last ten minutes, when the last was.
        waited: a row for each that has drawn: seconds waited, and draws.
        staleness: mean and largest, in versions, of the last queries.
        trained_on: labels of the largest training job that was given out.
        answers: item, annotator and label of the last 20,000 answers that stand, int64 each.
    """

    curve: Rows
    annotators: Rows
    waited: Rows
    staleness: dict[str, float | None]
    trained_on: int
    answers: dict[str, np.ndarray]


def live_figures(run: pathlib.Path, now: float) -> LiveFigures:
    """Reads what is shown of a run at time `now` of its clock.

    Raises:
        UserError: the record cannot be read.
    """
    with RunReader(run) as reader:
        return LiveFigures(
            curve=reader.rows(CURVE),
            annotators=reader.rows(ANNOTATORS, now),
            waited=reader.rows(WAITED),
            staleness=reader.rows(STALENESS)[0],
            trained_on=reader.rows(LATEST_JOB)[0]["labels"],
            answers={name: column.astype(np.int64) for name, column in reader.columns(COMPARED).items()},
        )


def examples_of(run: pathlib.Path, label: int, count: int) -> list[int]:
    """Returns ids that have a label, the last labelled first, those labelled from the start at the end."""
    with RunReader(run) as reader:
        return [row["item"] for row in reader.rows(OF_CLASS, label, count)]


def recorded_answer(run: pathlib.Path, example: int, annotator: int) -> int | None:
    """Returns the label that an annotator's answer for an id has, -1 for none; None where no such answer stands."""
    with RunReader(run) as reader:
        return next((row["label"] for row in reader.rows(ANSWER, example, annotator)), None)
