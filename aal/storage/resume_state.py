"""What a run that was broken off left in its `run.db`, and what of it counts."""

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
class Past:
    """The durable state of a run; leases, turns and waits end with the processes that had them.

    Attributes:
        answers: (item, label) in order of arrival in L, the initial ones not among them.
        open: items without an answer; they return to S.
        batches: (worker, items) of every batch that was offered.
        models: (model, ticket number) in order of version.
        test_accuracy: of the newest model.
        tickets: every training that was begun.
        draws: how often an annotator drew.
        seconds: the last time on record.
        ended: what the run noted of its end; None when it was killed.
        meta: its meta table.
    """

    answers: list[tuple[int, int]]
    open: list[int]
    batches: list[tuple[int, int]]
    models: list[tuple[ModelRef, int]]
    test_accuracy: float | None
    tickets: list[TrainingJob]
    draws: int
    seconds: float
    ended: str | None
    meta: dict[str, str]

    def finished(self, settings: Settings) -> bool:
        """Whether the run has ended well, and the settings ask for no more labels than it bought."""
        before = Settings.model_validate(yaml.safe_load(self.meta["config"]))
        return self.ended == "finished" and settings.budget <= before.budget


LAST_TIME = """SELECT max(t) FROM (SELECT max(offered_at) t FROM offers UNION ALL SELECT max(got_at) FROM waits
    UNION ALL SELECT max(answered_at) FROM answers UNION ALL SELECT max(published_at) FROM models
    UNION ALL SELECT max(given_at) FROM tickets UNION ALL SELECT max(resumed_at) FROM breaks)"""


def read_past(path: pathlib.Path) -> Past | None:
    """Reads what a run left; None when it was killed before it had written down where its images begin.

    Args:
        path: of its `run.db`; a write-ahead log that a killed process left beside it is taken in.

    Raises:
        UserError: the file is locked by another program, or holds no run, or one of an earlier version.
    """
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as db:
            if db.execute("SELECT type FROM sqlite_master WHERE name = 'queries'").fetchone() == ("table",):
                raise UserError(f"{path}: is of an earlier version of this program; start a new run")
            db.executescript(SCHEMA.read_text(encoding="utf-8"))
            # The seed is written last of the start.
            begun = db.execute("SELECT count(*) FROM meta WHERE key = 'seed'").fetchone()[0]
            if not begun:
                db.execute("DELETE FROM examples")
                db.commit()
            return _read(db) if begun else None
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _read(db: sqlite3.Connection) -> Past:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    models = db.execute("SELECT version, path, labels, ticket, test_accuracy FROM models ORDER BY version").fetchall()
    last = db.execute(LAST_TIME).fetchone()[0] or 0.0
    return Past(
        answers=db.execute("SELECT item, label FROM answers ORDER BY arrival").fetchall(),
        open=[item for (item,) in db.execute("SELECT item FROM offers WHERE item NOT IN (SELECT item FROM answers)")],
        batches=db.execute("SELECT worker, items FROM selections ORDER BY offered_at, worker, batch").fetchall(),
        models=[(ModelRef(version, path, labels), ticket) for version, path, labels, ticket, _ in models],
        test_accuracy=models[-1][4] if models else None,
        tickets=[TrainingJob(*row) for row in db.execute("SELECT number, labels FROM tickets ORDER BY number")],
        draws=db.execute("SELECT count(*) FROM waits").fetchone()[0],
        seconds=max(last, float(meta.get("wall_s", 0.0))),
        ended=meta.get("ended"),
        meta=meta,
    )
