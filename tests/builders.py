"""What tests of several files are built from: settings, pools, hubs, plans, run directories."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from aal.config.loading import resolve
from aal.config.registry import SCHEDULES
from aal.config.settings import Settings
from aal.coordination.hub import Hub
from aal.coordination.messages import Change
from aal.coordination.partition import Partition
from aal.coordination.pools import Pools
from aal.engines.base import Plan, Role
from aal.storage.journal import SCHEMA, Journal, Statement
from aal.storage.resume_state import ResumeState
from aal.storage.run_recorder import RunRecorder


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


class MemoryJournal(Journal):
    """A journal without a disk, which can die."""

    def __init__(self) -> None:
        self.changes: list[tuple[Statement, ...]] = []
        self.durable = 0
        self.failure = None

    def write(self, *statements: Statement) -> None:
        self.changes.append(tuple((sql, list(rows)) for sql, rows in statements))

    def flush(self) -> None:
        self.durable = len(self.changes)

    def close(self) -> None:
        pass

    def left_behind(self, lost: int, database: sqlite3.Connection) -> None:
        """Writes what is on disk when the process dies: all that was flushed, the rest less `lost` changes."""
        database.executescript(SCHEMA.read_text())
        for change in self.changes[: max(self.durable, len(self.changes) - lost)]:
            for sql, rows in change:
                database.executemany(sql, rows)


class MemoryRecorder(RunRecorder):
    """A record without a disk."""

    def __init__(self) -> None:
        self._journal = self.journal = MemoryJournal()


def make_settings(**changes: Any) -> Settings:
    """Two workers of three batches of five, a training every ten labels."""
    tree = {
        "data_type": "digits",
        "models": "cnn",
        "worker_num": 2,
        "worker_query_num": 3,
        "query_batch": 5,
        "server_train_threshold": 10,
        "initial_size": 4,
        "val_size": 2,
        **changes,
    }
    return resolve(tree, "test")


def make_partition(s: Settings, pool: int) -> Partition:
    """4 ids for testing, 2 for validation, 4 initial ones, then `pool` in shards."""
    shards = np.array_split(np.arange(10, 10 + pool), SCHEDULES.load(s.mode).shard_num(s))
    one = np.ones(1, np.float32)
    return Partition(np.arange(4), np.arange(4, 6), np.arange(6, 10), list(shards), 0 * one, one)


def make_hub(
    s: Settings,
    pool: int = 60,
    record: RunRecorder | None = None,
    clock: HandClock | None = None,
    state: ResumeState | None = None,
    notify: Callable[[Change], None] = lambda change: None,
) -> tuple[Hub, HandClock]:
    """A hub of three classes, whose true labels are all 0."""
    clock, schedule = clock or HandClock(), SCHEDULES.load(s.mode)
    partition = make_partition(s, pool)
    labels = np.zeros(10 + pool, np.int64)
    pools = Pools(partition, labels, schedule.pool_bound(s), seed=state.draws if state else 0)
    rules, record = schedule(s, pools), record or MemoryRecorder()
    if state is None:
        record.begin(partition.rows(labels), {})
    else:
        pools.restore(state.answers, state.unanswered)
        rules.restore(state.batches, state.models, state.jobs)
        record.resume(state.seconds, clock.now(), state.ended, {})
    return Hub(s, pools, rules, 3, record, clock, notify), clock


def imagined_plan(run: pathlib.Path, pool: int = 1000, **changes: Any) -> Plan:
    """A run that computes nothing: 4 images for testing, 2 for validation, 4 initial ones, ten classes."""
    tree = {
        **{"data_type": "digits", "models": "cnn", "engine": "simulated", "compute": "none", "initial_size": 4},
        **{"val_size": 2, **changes},
    }
    s = resolve(tree, "test")
    partition = make_partition(s, pool)
    labels = np.arange(10 + pool) % 10
    source = "aal.annotators.label_source"
    roles = [
        Role("server", "replaced:", "aal.app.server_train:serve", SCHEDULES.load(s.mode).server_num(s)),
        Role("worker", "replaced:", "aal.app.work_query:work", len(partition.shards)),
        Role("annotators", f"{source}:build", f"{source}:annotate", 1, (labels, tuple("0123456789"), None, None)),
    ]
    run.mkdir(exist_ok=True)
    return Plan(s, run, partition, labels, 10, roles, {"seed": str(s.seed)})


def query(run: pathlib.Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query on a run's database."""
    with read_only(run) as db:
        return db.execute(sql).fetchall()


@contextlib.contextmanager
def read_only(run: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """A run's database."""
    with contextlib.closing(sqlite3.connect(f"{(run / 'run.db').resolve().as_uri()}?mode=ro", uri=True)) as db:
        yield db
