"""What an interrupted run left in its `run.db`, and what of it counts."""

import pathlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass

import yaml

from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.coordination.messages import ModelRef, TrainingJob
from aal.storage.journal import SCHEMA


@dataclass(frozen=True)
class ResumeState:
    """The durable state of a run; leases, grants and waits end with the processes that had them.

    Attributes:
        answers: (id, label) in order of arrival in L, the initial ones not among them.
        unanswered: ids that were offered and have no answer; they return to S.
        batches: (worker, size) of every batch that was offered.
        models: (model, number of its job) in order of version.
        test_accuracy: of the newest model.
        answering: times of the first offer and of the last answer.
        jobs: every training job that was given out.
        draws: how often an annotator drew.
        seconds: the last time on record.
        ended: how the run says it ended; None when it was killed.
        meta: its meta table.
    """

    answers: list[tuple[int, int]]
    unanswered: list[int]
    batches: list[tuple[int, int]]
    models: list[tuple[ModelRef, int]]
    test_accuracy: float | None
    jobs: list[TrainingJob]
    draws: int
    seconds: float
    ended: str | None
    meta: dict[str, str]
    answering: tuple[float | None, float | None] = (None, None)

    def finished(self, settings: Settings) -> bool:
        """Whether the run has ended well, and the settings ask for no more labels than it bought."""
        before = Settings.model_validate(yaml.safe_load(self.meta["config"]))
        return self.ended == "finished" and settings.budget <= before.budget


LAST_TIME = """SELECT max(t) FROM (SELECT max(offered_at) t FROM offers UNION ALL SELECT max(got_at) FROM waits
    UNION ALL SELECT max(answered_at) FROM answers UNION ALL SELECT max(published_at) FROM models
    UNION ALL SELECT max(given_at) FROM jobs UNION ALL SELECT max(resumed_at) FROM breaks)"""


def read_resume_state(path: pathlib.Path) -> ResumeState | None:
    """Reads what a run left; None when it was killed before it had recorded where its examples begin.

    Args:
        path: of its `run.db`; a write-ahead log that a killed process left beside it is taken in.

    Raises:
        UserError: the file is locked by another program, or holds no run, or one of an earlier version.
    """
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as db:
            if _is_of_an_earlier_version(db):
                raise UserError(f"{path}: was written by an earlier version of this program; start a new run")
            db.executescript(SCHEMA.read_text(encoding="utf-8"))
            # The seed is written last of the start.
            begun = db.execute("SELECT count(*) FROM meta WHERE key = 'seed'").fetchone()[0]
            if not begun:
                db.execute("DELETE FROM examples")
                db.commit()
            return resume_state_of(db) if begun else None
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _is_of_an_earlier_version(db: sqlite3.Connection) -> bool:
    """Whether the file has tables of the first release, which had no jobs and no paths."""
    kinds = dict(db.execute("SELECT name, type FROM sqlite_master"))
    return kinds.get("queries") == "table" or kinds.get("tickets") == "table"


def resume_state_of(db: sqlite3.Connection) -> ResumeState:
    """Returns the state that an open database holds."""
    meta = dict(db.execute("SELECT key, value FROM meta"))
    models = db.execute(
        "SELECT version, path, labels, target, ticket, test_accuracy FROM models ORDER BY version"
    ).fetchall()
    refs = [ModelRef(version, path, labels, target) for version, path, labels, target, *_ in models]
    jobs = db.execute("SELECT number, labels, kind, target, owner, start, network FROM jobs ORDER BY number").fetchall()
    last = db.execute(LAST_TIME).fetchone()[0] or 0.0
    unanswered = db.execute("SELECT item FROM offers WHERE item NOT IN (SELECT item FROM answers)")
    return ResumeState(
        answers=db.execute("SELECT item, label FROM answers ORDER BY arrival").fetchall(),
        unanswered=[example for (example,) in unanswered],
        batches=db.execute("SELECT worker, items FROM selections ORDER BY offered_at, worker, batch").fetchall(),
        models=[(ref, model[4]) for ref, model in zip(refs, models, strict=True)],
        test_accuracy=models[-1][5] if models else None,
        jobs=[
            TrainingJob(number, labels, kind, target, owner, None if start is None else refs[start], network)
            for number, labels, kind, target, owner, start, network in jobs
        ],
        draws=db.execute("SELECT count(*) FROM waits").fetchone()[0],
        seconds=max(last, float(meta.get("wall_s", 0.0))),
        ended=meta.get("ended"),
        meta=meta,
        answering=db.execute("SELECT (SELECT min(offered_at) FROM offers), max(answered_at) FROM answers").fetchone(),
    )
