"""What an interrupted run left in its `run.db`, and what of it counts."""

import contextlib
import dataclasses
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.answers import Kind, Said
from aal.coordination.federation import FederationState, LocalModel, kept_with
from aal.coordination.messages import ModelRef, TrainingJob
from aal.coordination.query_pool import NO_MODEL
from aal.storage.acknowledged import NAME, acknowledged, check_answers
from aal.storage.checksum import is_published
from aal.storage.earlier_record import EARLIER
from aal.storage.record_checks import check_record
from aal.storage.schema import create_tables, epoch_of, raise_epoch


@dataclass(frozen=True)
class ResumeState:
    """The durable state of a run; leases, grants and waits end with the processes that had them.

    Attributes:
        labels: (id, label, or None where it was taken back) in the order of L, the initial ones not among them.
        said: all that annotators said, in order.
        retired: ids that are to have no label.
        unanswered: (id, version that chose it, who drew it) of queries that have no label; they return to S.
        batches: the worker of every batch that was offered.
        models: (model, number of its job) in order of version.
        test_accuracy: of the newest model whose file is sound.
        test_images: that this one was tested on.
        answering: times of the first offer and of the last answer.
        recent_draws: times of the last draws.
        recent_selections: seconds of the last selections, from their grants until their batches were in S.
        federation: what clients had sent.
        jobs: every training job that was given out.
        draws: how often an annotator drew.
        seconds: the last time on record.
        ended: how the run says it ended; None when it was killed.
        meta: its meta table.
        lost: versions in use whose files are missing, damaged or not those that were published; they are trained again.
        outdated: numbers of the jobs that were given out before a label was last changed; None if none ever was.
        epoch: of the record, which whoever goes on with the run must hold.
    """

    labels: list[tuple[int, int | None]]
    said: list[Said]
    retired: list[int]
    unanswered: list[tuple[int, int, frozenset[int]]]
    batches: list[int]
    models: list[tuple[ModelRef, int]]
    test_accuracy: float | None
    jobs: list[TrainingJob]
    draws: int
    seconds: float
    ended: str | None
    meta: dict[str, str]
    answering: tuple[float | None, float | None] = (None, None)
    lost: frozenset[int] = frozenset()
    outdated: frozenset[int] | None = None
    epoch: int = 0
    test_images: int = 0
    recent_draws: Sequence[float] = ()
    recent_selections: Sequence[float] = ()
    federation: FederationState = dataclasses.field(default_factory=FederationState)

    @property
    def settings(self) -> Settings:
        """The settings that the run went on with last."""
        return resolve(yaml.safe_load(self.meta["config"]), "run.db")

    @property
    def files(self) -> set[str]:
        """Files of roles, relative to the run directory, that the record names, and what was kept beside these."""
        local = [model.path for model in self.federation.local_models if model.path]
        return {model.path for model, _ in self.models} | {*local, *map(kept_with, local)}

    def finished(self, settings: Settings) -> bool:
        """Whether the run has ended well, and the settings ask for no more labels than it bought."""
        return self.ended == "finished" and not self.lost and settings.budget <= self.settings.budget


UNANSWERED = """SELECT item, version, group_concat(DISTINCT annotator)
    FROM standing_queries LEFT JOIN waits USING (item)
    WHERE item NOT IN (SELECT item FROM labels WHERE label IS NOT NULL) AND item NOT IN (SELECT item FROM retired)
    GROUP BY item ORDER BY item"""
OUTDATED = "SELECT number FROM jobs WHERE given_at <= (SELECT max(changed_at) FROM labels)"
LAST_TIME = """SELECT max(t) FROM (SELECT max(offered_at) t FROM offers UNION ALL SELECT max(got_at) FROM waits
    UNION ALL SELECT max(answered_at) FROM answers UNION ALL SELECT max(published_at) FROM models
    UNION ALL SELECT max(given_at) FROM jobs UNION ALL SELECT max(granted_at) FROM grants
    UNION ALL SELECT max(delivered_at) FROM local_models
    UNION ALL SELECT max(resumed_at) FROM breaks)"""
LOCAL_MODELS = """SELECT job, client, version, labels, start, path, started_at, loss, checksum, dropped_out
    FROM local_models ORDER BY rowid"""
RECENT_DRAWS = "SELECT got_at FROM waits WHERE asked_at IS NOT NULL ORDER BY rowid DESC LIMIT 1000"
RECENT_SELECTIONS = """SELECT offered_at - granted_at FROM grants JOIN selections USING (worker, batch)
    ORDER BY offered_at DESC LIMIT 100"""


def read_resume_state(path: pathlib.Path) -> ResumeState | None:
    """Reads what a run left and checks it; None when it was killed before it had recorded where its examples begin.

    Args:
        path: of its `run.db`; a write-ahead log that a killed process left beside it is taken in.

    Raises:
        UserError: the file is locked by another program, is damaged, has lost answers, or is of an earlier version.
    """
    known = acknowledged(path)
    if not _is_there(path, known):
        return None
    with _opened(path) as db:
        create_tables(db)
        check_answers(path, db, known)
        if not _has_begun(db):
            return None
        check_record(path, db)
        state = _with_files(path, resume_state_of(db), db)
        state.settings  # noqa: B018 - read for its errors
    if known is None and state.ended is None and state.epoch:  # records of earlier versions have no epoch
        raise UserError(
            f"{path.with_name(NAME)}: is missing, so nothing says whether run.db holds every answer; copy it, and "
            f"{path.name}-wal with it, from where the run was killed"
        )
    return state


def take_over(path: pathlib.Path) -> ResumeState | None:
    """Reads what a run left, and from that moment on lets no earlier writer of the record change anything more.

    Raises:
        UserError: the file is locked by another program, or has lost answers.
    """
    known = acknowledged(path)
    if not _is_there(path, known):
        return None
    with _opened(path) as db:
        create_tables(db)  # the former writer may have been killed before it did
        db.execute("BEGIN IMMEDIATE")
        check_answers(path, db, known)
        raise_epoch(db)
        state = _with_files(path, resume_state_of(db), db) if _has_begun(db) else None
        if state is None:
            db.execute("DELETE FROM examples")
        db.commit()
        return state


def _is_there(path: pathlib.Path, known: tuple[int, int] | None) -> bool:
    """Whether there is a record.

    Raises:
        UserError: it is gone with acknowledged answers that stand nowhere else, or is no file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file")
    if not path.exists() and known and known[0] and not path.with_name(EARLIER).exists():
        raise UserError(f"{path}: is missing, and with it the {known[0]} answers that were acknowledged ({NAME})")
    return path.exists()


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """Opens a record; what SQLite or a damaged value raises within the block is reported."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as db:
            if _is_of_an_earlier_version(db):
                raise UserError(f"{path}: was written by an earlier version of this program; start a new run")
            yield db
    except (sqlite3.Error, ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def _has_begun(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM meta WHERE key = 'seed'").fetchone()[0])  # written last of the start


def _is_of_an_earlier_version(db: sqlite3.Connection) -> bool:
    """Whether the file has tables of the first release, which had no jobs and no paths."""
    kinds = dict(db.execute("SELECT name, type FROM sqlite_master"))
    return kinds.get("queries") == "table" or kinds.get("tickets") == "table"


def _with_files(path: pathlib.Path, state: ResumeState, db: sqlite3.Connection) -> ResumeState:
    """Returns the state with the newest models whose files have suffered; older ones are not used any more."""
    newest = {model.target: model for model, _ in state.models}
    checksums = dict(db.execute("SELECT version, checksum FROM models"))
    accuracies = dict(db.execute("SELECT version, test_accuracy FROM models"))
    lost = {
        model.version
        for model in newest.values()
        if state.settings.compute == "full" and not is_published(path.parent / model.path, checksums[model.version])
    }
    sound = max(accuracies.keys() - lost, default=None)  # the version that is the newest until others are trained again
    accuracy = None if sound is None else accuracies[sound]
    (images,) = db.execute("SELECT coalesce(sum(images), 0) FROM confusion WHERE version = ?", (sound,)).fetchone()
    return dataclasses.replace(state, lost=frozenset(lost), test_accuracy=accuracy, test_images=images)


def resume_state_of(db: sqlite3.Connection) -> ResumeState:
    """Returns the state that an open database holds."""
    meta = dict(db.execute("SELECT key, value FROM meta"))
    models = db.execute(
        "SELECT version, path, labels, target, ticket, test_accuracy FROM models ORDER BY version"
    ).fetchall()
    refs = [ModelRef(version, path, labels, target) for version, path, labels, target, *_ in models]
    jobs = db.execute("SELECT number, labels, kind, target, owner, start, network FROM jobs ORDER BY number").fetchall()
    last = db.execute(LAST_TIME).fetchone()[0] or 0.0
    unanswered = db.execute(UNANSWERED)
    batches = db.execute("SELECT worker FROM selections ORDER BY offered_at, worker, batch")
    return ResumeState(
        labels=db.execute("SELECT item, label FROM labels ORDER BY arrival").fetchall(),
        said=[
            Said(item, annotator, label, Kind(kind))
            for item, annotator, label, kind in db.execute(
                "SELECT item, annotator, label, kind FROM answers ORDER BY arrival"
            )
        ],
        retired=[item for (item,) in db.execute("SELECT item FROM retired")],
        unanswered=[
            (example, NO_MODEL if version is None else version, _numbers(drawers))
            for example, version, drawers in unanswered
        ],
        batches=[worker for (worker,) in batches],
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
        outdated=_outdated(db),
        epoch=epoch_of(db),
        recent_draws=[at for (at,) in db.execute(RECENT_DRAWS)][::-1],
        recent_selections=[seconds for (seconds,) in db.execute(RECENT_SELECTIONS)][::-1],
        federation=_federation(db),
    )


def _local_model(row: tuple[Any, ...]) -> LocalModel:
    found = dict(zip((one.name for one in dataclasses.fields(LocalModel)), row, strict=True))
    return LocalModel(**{**found, "dropped_out": bool(found["dropped_out"])})


def _federation(db: sqlite3.Connection) -> FederationState:
    """Returns what clients had sent, and what became of it."""
    merged: dict[int, list[int]] = {}
    for version, job in db.execute("SELECT version, job FROM rounds ORDER BY rowid"):
        merged.setdefault(version, []).append(job)
    tested = db.execute("SELECT version FROM models WHERE test_accuracy IS NOT NULL")
    return FederationState(
        [_local_model(row) for row in db.execute(LOCAL_MODELS)],
        merged,
        frozenset(version for (version,) in tested),
    )


def _numbers(text: str | None) -> frozenset[int]:
    return frozenset(map(int, text.split(","))) if text else frozenset()


def _outdated(db: sqlite3.Connection) -> frozenset[int] | None:
    """Returns the numbers of the jobs that were given out before a label was last changed; None if none ever was."""
    if db.execute("SELECT max(changed_at) FROM labels").fetchone() == (None,):
        return None
    return frozenset(number for (number,) in db.execute(OUTDATED))
