"""What tests of several files are built from: settings, pools, hubs, plans, run directories."""

import contextlib
import pathlib
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import yaml

from aal.app.data import save_split
from aal.app.experiments.aal_2021.plans import Run
from aal.config.loading import dump, resolve
from aal.config.settings import Settings
from aal.coordination.hub import Hub
from aal.coordination.messages import Change
from aal.coordination.partition import HeldOut, Partition
from aal.coordination.schedules import schedule_of
from aal.engines.base import Plan, Role, answers_of
from aal.storage.journal import Journal
from aal.storage.model_files import save_model
from aal.storage.resume_state import ResumeState
from aal.storage.run_recorder import RunRecorder
from aal.storage.schema import SCHEMA
from aal.storage.statements import Statement
from bench.rows import until

META = {"wall_s": "9.5", "version_python": "3.11.9", "hardware": "a machine"}
VALIDATION = [{"epoch": epoch, "loss": 1.0, "val_accuracy": score} for epoch, score in ((1, None), (2, 0.5), (3, 0.5))]
CONFIG = {"data_type": "digits", "mode": "async", "engine": "local", "seed": 7, "server_num": 2}


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

    def throttle(self) -> None:
        pass

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
    """Two workers of three batches of five, a training every ten labels, a bound of one round."""
    tree = {
        "data_type": "digits",
        "models": "cnn",
        "worker_num": 2,
        "worker_query_num": 3,
        "query_batch": 5,
        "server_train_threshold": 10,
        "initial_size": 4,
        "val_size": 2,
        "max_staleness": 1,
        **changes,
    }
    return resolve(tree, "test")


def make_partition(s: Settings, pool: int, held_out: int = 0) -> Partition:
    """4 ids for testing, 2 for validation, 4 initial ones, then `pool` in shards, of which some are held out."""
    one, initial = np.ones(1, np.float32), np.arange(6, 10 if s.initial_size else 6)
    pool_ids = np.arange(6 + len(initial), 10 + pool)
    shards = np.array_split(pool_ids, schedule_of(s).shard_num(s))
    owner = None if s.federated is None else np.arange(4) % len(shards)
    drawn = np.random.RandomState(held_out).permutation(pool_ids)[:held_out]
    parts = HeldOut(np.sort(drawn[::2]), np.sort(drawn[1::2]))
    return Partition(np.arange(4), np.arange(4, 6), initial, list(shards), 0 * one, one, owner, parts)


def make_hub(
    s: Settings,
    pool: int = 60,
    record: RunRecorder | None = None,
    clock: HandClock | None = None,
    state: ResumeState | None = None,
    notify: Callable[[Change], None] = lambda change: None,
    held_out: int = 0,
) -> tuple[Hub, HandClock]:
    """A hub of three classes, whose true labels are all 0."""
    clock, schedule = clock or HandClock(), schedule_of(s)
    partition = make_partition(s, pool, held_out)
    labels = np.zeros(10 + pool, np.int64)
    seed = state.draws if state else 0
    pools = schedule.make_pools(s, partition, labels, seed, *answers_of(s, partition, 3, seed))
    rules, record = schedule(s, pools), record or MemoryRecorder()
    if state is None:
        record.begin(partition.rows(labels), {})
    else:
        pools.restore(state.labels, state.unanswered, state.said, state.retired)
        rules.restore(state.batches, state.models, state.jobs, state.lost, state.outdated)
        rules.recall(state.recent_draws, state.recent_selections)
        rules.recall_federation(state.federation)
        record.resume(state.seconds, clock.now(), state.ended, {})
    return schedule.hub_type()(s, pools, rules, 3, record, clock, notify), clock


def imagined_plan(run: pathlib.Path, pool: int = 1000, **changes: Any) -> Plan:
    """A run that computes nothing: 4 images for testing, 2 for validation, 4 initial ones, ten classes."""
    tree = {
        **{"data_type": "digits", "models": "cnn", "engine": "simulated", "compute": "none", "initial_size": 4},
        **{"val_size": 2, "max_staleness": 1, **changes},
    }
    s = resolve(tree, "test")
    partition = make_partition(s, pool)
    labels = np.arange(10 + pool) % 10
    source = "aal.annotators.label_source"
    asked, workers = (labels, tuple("0123456789"), None, None), len(partition.shards)
    roles = [
        Role("server", "replaced:", "aal.app.server_train:serve", schedule_of(s).server_num(s)),
        Role("worker", "replaced:", "aal.app.work_query:work", workers),
        Role("annotators", f"{source}:build", f"{source}:annotate", 1, asked),
    ]
    if s.federated is not None:
        clients = (*asked, partition.shards)
        roles = [
            Role("client", "replaced:", "aal.app.client_train:live", workers),
            Role("server", "replaced:", "aal.app.server_average:serve", 1, part="aggregator"),
            Role("evaluator", "replaced:", "aal.app.server_average:score", 1),
            Role("annotators", f"{source}:build", f"{source}:annotate", workers, clients, processes=1),
        ]
    run.mkdir(exist_ok=True)
    meta = {"seed": str(s.seed), "config": dump(s)}
    return Plan(s, run, partition, labels, 10, roles, meta)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until a condition holds; a wait without end is a failure."""
    assert until(lambda: bool(condition()), seconds), "it never came"


def query(run: pathlib.Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query on a run's database."""
    with read_only(run) as db:
        return db.execute(sql).fetchall()


@contextlib.contextmanager
def read_only(run: pathlib.Path) -> Iterator[sqlite3.Connection]:
    """A run's database."""
    with contextlib.closing(sqlite3.connect(f"{(run / 'run.db').resolve().as_uri()}?mode=ro", uri=True)) as db:
        yield db


def make_run(
    folder: pathlib.Path, config: Mapping[str, Any] = CONFIG, **tables: Iterable[Sequence[Any]]
) -> pathlib.Path:
    """A run directory with a record that was made up, so that every figure is known."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    db = sqlite3.connect(folder / "run.db")
    db.execute("pragma journal_mode=wal")
    db.executescript(SCHEMA.read_text())
    if "answers" in tables and "labels" not in tables:  # one answer each
        answers = [tuple(row) for row in tables["answers"]]
        labels = [(number, item, label, 1.0, who, at) for number, item, who, label, at in answers]
        tables = {**tables, "answers": answers, "labels": labels}
    for table, rows in tables.items():
        columns = [name for _, name, *_ in db.execute(f"pragma table_info({table})")]
        for row in rows:
            given = columns[: len(row)]
            db.execute(f"insert into {table}({','.join(given)}) values({','.join('?' * len(row))})", row)
    db.commit()
    db.close()
    return folder


def model(
    version: int, server: int, labels: int, start: float, end: float, test: float | None, name: str = "cnn"
) -> tuple[Any, ...]:
    """A row of `models`."""
    return (version, server, labels, start, end, 0.5, test, f"models/{version}.pt", name, 9, version)


def finished_run(
    run: Run,
    runs: pathlib.Path,
    accuracies: Sequence[float | None],
    *,
    ended: str = "finished",
    every_s: float = 1.0,
    first_s: float | None = None,
    offered: Sequence[int] = (),
    initial: int = 20,
    epoch: int = 3,
) -> pathlib.Path:
    """Makes the folder of a run.

    Args:
        run: what was planned; the labels are its own, the first `len(accuracies)` of its grid.
        runs: the folder that the run's folder goes to.
        accuracies: test accuracy of each model.
        ended: what the run notes of its end.
        every_s: seconds between two batches of a worker.
        first_s: seconds between the first two, where they differ.
        offered: ids that were offered besides those of the shards.
        initial: the first id of the initial set.
        epoch: that the models say they keep; 3 is right.
    """
    folder = runs / run.name
    shutil.rmtree(folder, ignore_errors=True)
    s, grid = run.settings, run.grid[: len(accuracies)]
    start, bought = run.grid[0], grid[-1] - run.grid[0]
    if s.compute == "none":
        start = bought = 8  # what such a run looks at are times, not counts
    first = initial + start
    ids = np.arange(first, first + bought)
    parts = (np.arange(10), np.arange(10, 20), np.arange(initial, first), [ids])
    examples = [(int(item), "initial", None, 0) for item in parts[2]]
    items = [int(item) for item in (*ids, *offered)]
    versions = [min(number // s.server_train_threshold, len(grid) - 1) for number in range(len(items))]
    offers = [(item, 0, "margin", versions[number], 0, number) for number, item in enumerate(items)]
    answers = [(number, item, 0, 0, number + 0.5) for number, item in enumerate(items)]
    models = [
        (version, 0, labels, float(version), version + 0.5, 0.5, accuracy, f"models/{version}.pt", "cnn", 3, version)
        for version, (labels, accuracy) in enumerate(zip(grid, accuracies, strict=True))
    ]
    late = 0.0 if first_s is None else first_s - every_s
    times = [batch * every_s + (late if batch else 0.0) for batch in range(4)]
    selections = [(0, batch, "margin", 0, 1, at, at) for batch, at in enumerate(times)]
    tables: dict[str, list[tuple]] = {"examples": examples, "offers": offers, "models": models}
    tables |= {"selections": selections, "answers": answers}
    tables["waits"] = [(0, number - 0.5, number, item) for number, item in enumerate(items)]
    tables["meta"] = [*META.items(), ("ended", ended)]
    make_run(folder, yaml.safe_load(dump(s)), **tables)
    (folder / "models").mkdir()
    save_split(Partition(*parts, np.zeros(1, np.float32), np.ones(1, np.float32)), folder / "split.npz")
    if s.compute == "full":
        for version, labels in enumerate(grid):
            _save(folder / "models" / f"{version}.pt", labels, epoch)
    return folder


def _save(path: pathlib.Path, labels: int, epoch: int) -> None:
    architecture = {"name": "cnn", "classes": 10, "channels": 1, "image_size": 8, "options": {"width": 1.0}}
    about = {"data_type": "digits", "image_size": None, "test_share": None, "seed": 0, "images": "digits"}
    payload = {
        **{"state_dict": {"weight": torch.zeros(1)}, "architecture": architecture, "data": about},
        **{"normalisation": {"mean": [0.0], "std": [1.0]}, "class_names": ["0"], "labels": labels},
        **{"epoch": epoch, "history": VALIDATION},
    }
    save_model(path, payload)
