"""The hub as a whole: whatever the settings and the order of events, a run ends with every label bought and used."""

import asyncio
import contextlib
import pathlib
import random
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aal.config.errors import Stopped
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.clock import Work
from aal.coordination.hub import LABELLED, NOT_OURS, QUERIED, UNLABELLED, Hub
from aal.coordination.messages import Computing, QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.parts import Parts
from aal.storage.journal import SCHEMA, Journal, JournalFailed, Statement
from aal.storage.resume_state import _read

pytestmark = pytest.mark.unit
COLUMNS = "item worker strategy version newest offered_at drawn_at annotator answered_at label arrival"
NO_SHRINK = (Phase.explicit, Phase.reuse, Phase.generate)  # a run that never ends would take minutes to shrink


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the hub never waits")

    async def until(self, attempt: Callable[..., Any], *args: Any) -> Any:
        raise AssertionError("the hub never waits")

    async def pause(self, news: asyncio.Event, seconds: float) -> None:
        raise AssertionError("the hub never waits")

    async def spend(self, work: Work, act: Callable[..., Any], *args: Any) -> Any:
        raise AssertionError("the hub never works")


class MemoryJournal(Journal):
    """A journal without a disk, which can die."""

    def __init__(self) -> None:
        self.changes: list[tuple[Statement, ...]] = []
        self.durable = 0
        self.failure = None

    def write(self, *statements: Statement) -> None:
        self.changes.append(statements)

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


def make_settings(**changes: Any) -> Settings:
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


def make_parts(s: Settings, pool: int) -> Parts:
    shards = np.array_split(np.arange(10, 10 + pool), 1 if s.mode == "sync" else s.worker_num)
    return Parts(3, np.zeros(10 + pool, np.int64), np.arange(4), np.arange(4, 6), np.arange(6, 10), list(shards))


def make_hub(s: Settings, pool: int = 60, journal: Journal | None = None) -> tuple[Hub, HandClock]:
    clock = HandClock()
    return Hub(s, make_parts(s, pool), journal or MemoryJournal(), clock), clock


class Crowd:
    """Servers, workers and annotators that act one small step at a time, in an order that a seed draws."""

    def __init__(self, hub: Hub, clock: HandClock, s: Settings, seed: int, deaths: float) -> None:
        self.hub, self.clock, self.settings = hub, clock, s
        self.random = random.Random(seed)
        self.deaths = deaths
        shards = 1 if s.mode == "sync" else s.worker_num
        self.tickets: dict[int, TrainingJob | None] = dict.fromkeys(range(s.server_num))
        self.turns: dict[int, SelectionGrant | None] = dict.fromkeys(range(shards))
        self.held: dict[int, list[int]] = {annotator: [] for annotator in range(3)}
        self.trained: list[int] = []
        self.answered: dict[int, int] = {}

    def step(self) -> bool:
        """One step of a random role; False when no role is left."""
        roles: list[tuple[str, int]] = [("server", i) for i in self.tickets] + [("worker", i) for i in self.turns]
        if not roles:
            return False
        roles += [("annotator", i) for i in self.held]
        name, index = self.random.choice(roles)
        self.clock.time += self.random.random()
        if self.random.random() < self.deaths:
            self.die(name, index)
        else:
            getattr(self, name)(index)
        return True

    def die(self, name: str, index: int) -> None:
        self.hub.release("annotators" if name == "annotator" else name, index)
        if name == "server":
            self.tickets[index] = None
        elif name == "worker":
            self.turns[index] = None
        else:  # all of them, for they share a process
            self.held = {annotator: [] for annotator in self.held}

    def server(self, index: int) -> None:
        ticket = self.tickets[index]
        try:
            if ticket is None:
                self.tickets[index] = self.hub.ticket(index)
            else:
                assert len(self.hub.labels(0, ticket.labels)[0]) == ticket.labels
                self.hub.publish(TrainedModel(ticket.number, index, "cnn", f"{ticket.number}", 1, 0.0, None, 0.5))
                self.trained.append(ticket.labels)
                self.tickets[index] = None
        except Stopped:
            del self.tickets[index]

    def worker(self, index: int) -> None:
        turn = self.turns[index]
        try:
            if turn is None:
                self.turns[index] = self.hub.turn(index)
            else:
                remaining = self.hub.remaining(index).tolist()
                items = self.random.sample(remaining, turn.count)
                self.hub.offer(QueryBatch(index, turn.batch, items, "random", turn.models[0].version, 0.0))
                self.turns[index] = None
        except Stopped:
            del self.turns[index]

    def annotator(self, index: int) -> None:
        held = self.held[index]
        if held and self.random.random() < 0.7:
            item = held.pop(self.random.randrange(len(held)))
            (taken,) = self.hub.answer([item], [index], [1])
            assert taken == (item not in self.answered)
            self.answered[item] = index
            return
        try:
            held.extend(self.hub.draw([index], [self.clock.now()], 1))
        except Stopped:
            held.clear()


def places(hub: Hub, parts: Parts) -> list[int]:
    """Every id, once for each place it is in."""
    unlabelled = np.flatnonzero(hub._state == UNLABELLED).tolist()
    labelled = hub.labeled.between(0, len(hub.labeled))[0].tolist()
    outside = [*parts.test.tolist(), *parts.validation.tolist()]
    assert (hub._state[outside] == NOT_OURS).all() and (hub._state[labelled] == LABELLED).all()
    queried = hub.queries.waiting_items() + hub.queries.leased_items()
    assert (hub._state[queried] == QUERIED).all()
    return sorted(unlabelled + queried + labelled + outside)


crowds = st.fixed_dictionaries(
    {
        "server_num": st.integers(1, 3),
        "worker_num": st.integers(1, 4),
        "worker_query_num": st.integers(1, 5),
        "query_batch": st.integers(1, 6),
        "threshold": st.integers(1, 60),
        "max_staleness": st.sampled_from([0, 1, 2, None]),
        "server_train_num": st.sampled_from([None, 1, 2, 5]),
        "mode": st.sampled_from(["async", "async", "sync"]),
        "pool": st.integers(8, 100),
        "lease_s": st.sampled_from([3.0, 1000.0]),
    }
)


def live(crowd: Crowd, parts: Parts, steps: int) -> bool:
    """Lets a crowd take at most so many steps, looking whether every id is in its one place, and who computes."""
    for step in range(steps):
        if not crowd.step():
            return True
        with contextlib.suppress(Stopped):
            held = (sum(one is not None for one in held.values()) for held in (crowd.tickets, crowd.turns))
            assert crowd.hub.check("server-0") == Computing(*held)
        if step % 16 == 0:
            assert places(crowd.hub, parts) == list(range(len(parts.truth)))
    return False


def resumed(crowd: Crowd, parts: Parts, lost: int) -> Crowd:
    """All processes of a run were killed; others go on from what is on disk."""
    journal = crowd.hub._journal
    assert isinstance(journal, MemoryJournal)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        journal.left_behind(lost, database)
        past = _read(database)
        again = MemoryJournal()
        again.changes = [((line, [()]),) for line in database.iterdump() if line.startswith("INSERT")]
    again.durable = len(again.changes)
    hub = Hub(crowd.settings, parts, again, crowd.clock, {}, past)
    assert {item for item, _ in past.answers} == set(crowd.answered), "an acknowledged answer is never lost"
    assert places(hub, parts) == list(range(len(parts.truth)))
    successor = Crowd(hub, crowd.clock, crowd.settings, crowd.random.randrange(2**20), crowd.deaths)
    successor.answered, successor.trained = crowd.answered, crowd.trained
    return successor


@settings(max_examples=400, deadline=None, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=crowds,
    seed=st.integers(0, 2**20),
    deaths=st.sampled_from([0.0, 0.05]),
    crashes=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 30)), max_size=3),
)
def test_every_run_ends_with_every_label_bought_once_and_trained_on(
    drawn: dict[str, Any], seed: int, deaths: float, crashes: list[tuple[int, int]]
) -> None:
    drawn = dict(drawn)
    pool, threshold, lease = drawn.pop("pool"), drawn.pop("threshold"), drawn.pop("lease_s")
    budget = drawn["worker_num"] * drawn["worker_query_num"] * drawn["query_batch"]
    s = make_settings(**drawn, server_train_threshold=min(threshold, budget), annotators={"lease_s": lease})
    parts = make_parts(s, pool)
    hub, clock = make_hub(s, pool)
    crowd = Crowd(hub, clock, s, seed, deaths)
    for steps, lost in crashes:
        if live(crowd, parts, steps):
            break
        crowd = resumed(crowd, parts, lost)
    assert live(crowd, parts, 20_000), f"the run never ends: {crowd.hub.status()}"
    assert crowd.hub.status().finished
    assert places(crowd.hub, parts) == list(range(len(parts.truth)))
    shards = [min(len(shard), s.worker_query_num * s.query_batch) for shard in parts.shards]
    expected = min(s.budget, pool) if s.mode == "sync" else sum(shards)
    assert len(crowd.answered) == expected
    assert max(crowd.trained) == 4 + expected, "the last training uses every label"
    if s.server_train_num is not None:
        assert len(crowd.trained) <= 1 + s.server_train_num


def train(hub: Hub, server: int = 0) -> TrainingJob | None:
    ticket = hub.ticket(server)
    if ticket is not None:
        hub.publish(TrainedModel(ticket.number, server, "cnn", "p", 1, 0.0, None, 0.5))
    return ticket


def offer(hub: Hub, worker: int) -> bool:
    """Lets a worker take its turn, if it has one."""
    turn = hub.turn(worker)
    if turn is None:
        return False
    items = hub.remaining(worker)[: turn.count].tolist()
    hub.offer(QueryBatch(worker, turn.batch, items, "random", turn.models[0].version, 0.0))
    return True


def answer_all(hub: Hub) -> int:
    count = 0
    while items := hub.draw([0], [0.0], 1):
        count += sum(hub.answer(items, [0], [2]))
    return count


def test_a_bound_of_one_lets_selection_run_one_round_ahead() -> None:
    hub, _ = make_hub(make_settings())
    assert not offer(hub, 0), "no model yet"
    train(hub)
    assert offer(hub, 0) and offer(hub, 0) and offer(hub, 1) and offer(hub, 1)
    assert not offer(hub, 0), "batch 2 belongs to round 2 and needs version 1"
    assert answer_all(hub) == 20
    ticket = train(hub)
    assert ticket is not None and ticket.labels == 24, "the surplus over the threshold is absorbed"
    assert offer(hub, 0) and offer(hub, 1)


def test_free_workers_do_not_wait_for_models() -> None:
    hub, _ = make_hub(make_settings(max_staleness=None))
    train(hub)
    assert [offer(hub, 0) for _ in range(3)] == [True] * 3
    with pytest.raises(Stopped):
        hub.turn(0)


def test_sync_takes_turns() -> None:
    hub, _ = make_hub(make_settings(mode="sync"))
    train(hub)
    assert offer(hub, 0)
    assert not offer(hub, 0), "labels come first"
    assert hub.ticket(0) is None
    answer_all(hub)
    assert not offer(hub, 0), "a training comes first"
    assert train(hub) is not None
    assert offer(hub, 0)


def test_the_server_that_has_waited_longest_is_served_and_a_dead_ones_ticket_returns() -> None:
    hub, _ = make_hub(make_settings(server_num=3))
    first = hub.ticket(2)
    assert first is not None and first.number == 0
    assert hub.ticket(0) is None and hub.ticket(1) is None
    hub.release("server", 2)
    assert hub.ticket(1) is None, "server 0 has waited longer"
    assert hub.ticket(0) == first
    with pytest.raises(ValueError, match="does not hold"):
        hub.publish(TrainedModel(0, 2, "cnn", "p", 1, 0.0, None, 0.5))


def test_a_full_pool_makes_the_worker_wait_and_drops_nothing() -> None:
    hub, _ = make_hub(make_settings(query_pool_size=5))
    train(hub)
    assert offer(hub, 0)
    assert hub.turn(1) is None
    assert answer_all(hub) == 5
    assert hub.turn(0) is not None
    assert hub.turn(1) is None, "the room is kept for what worker 0 is choosing"
    hub.release("worker", 0)
    assert offer(hub, 1)


def test_offers_of_foreign_or_repeated_items_are_refused() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    for items in ([10, 10], [69], [6], [0]):
        assert hub.turn(0) is not None
        with pytest.raises(ValueError, match="worker 0"):
            hub.offer(QueryBatch(0, 0, items, "random", 0, 0.0))
    with pytest.raises(ValueError, match="not due"):
        hub.offer(QueryBatch(0, 1, [10], "random", 0, 0.0))


def test_a_label_outside_the_classes_is_refused() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    offer(hub, 0)
    (item,) = hub.draw([0], [0.0], 1)
    with pytest.raises(ValueError, match="label 3"):
        hub.answer([item], [0], [3])
    assert hub.answer([item], [0], [2]) == [True]


def test_an_acknowledged_answer_is_on_disk_and_every_row_tells_its_story(tmp_path: pathlib.Path) -> None:
    hub, clock = make_hub(make_settings(), journal=Journal(tmp_path / "run.db"))
    train(hub)
    clock.time = 1.0
    offer(hub, 0)
    clock.time = 2.0
    (item,) = hub.draw([7], [1.5], 1)
    clock.time = 3.0
    assert hub.answer([item], [7], [2]) == [True]
    reader = sqlite3.connect(f"file:{tmp_path / 'run.db'}?mode=ro", uri=True)
    try:
        rows = reader.execute("SELECT * FROM queries WHERE answered_at IS NOT NULL").fetchall()
        assert rows == [(item, 0, "random", 0, 0, 1.0, 2.0, 7, 3.0, 2, 0)]
        names = [name for _, name, *_ in reader.execute("PRAGMA table_info(queries)")]
        assert names == COLUMNS.split()
        assert reader.execute("SELECT * FROM waits").fetchall() == [(7, 1.5, 2.0, item)]
        assert reader.execute("SELECT count(*) FROM queries").fetchone() == (5,)
        assert reader.execute("SELECT worker,batch,version,items,offered_at FROM selections").fetchall() == [
            (0, 0, 0, 5, 1.0)
        ]
        parts = dict(reader.execute("SELECT part, count(*) FROM examples GROUP BY part").fetchall())
        assert parts == {"test": 4, "validation": 2, "initial": 4, "shard": 60}
    finally:
        reader.close()
        hub.close("finished")


def test_a_query_tells_its_last_draw_until_somebody_answers_then_theirs(tmp_path: pathlib.Path) -> None:
    hub, clock = make_hub(make_settings(query_batch=1, server_train_threshold=2), journal=Journal(tmp_path / "run.db"))
    train(hub)
    offer(hub, 0)
    reader = sqlite3.connect(tmp_path / "run.db")

    def told() -> list[Any]:
        hub._flush()
        return reader.execute("SELECT drawn_at, annotator, answered_at, label FROM queries").fetchall()

    try:
        assert told() == [(None, None, None, None)]
        for annotator, drawn_at in ((3, 1.0), (8, 1e6)):  # the first lease has run out by then
            clock.time = drawn_at
            (item,) = hub.draw([annotator], [0.5], 1)
            assert told() == [(drawn_at, annotator, None, None)]
        clock.time = 1e6 + 1
        assert hub.answer([item, item], [3, 8], [1, 2]) == [True, False], "the first to answer, though late"
        assert told() == [(1.0, 3, 1e6 + 1, 1)]
    finally:
        reader.close()
        hub.close("finished")


def test_many_threads_share_commits_and_lose_nothing(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "run.db")

    def note(thread: int) -> None:
        for number in range(50):
            journal.write(("INSERT INTO waits VALUES(?,?,?,?)", [(thread, number, 0.0, 0)]))
            journal.flush()

    threads = [threading.Thread(target=note, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    reader = sqlite3.connect(tmp_path / "run.db")
    counts = reader.execute("SELECT count(*), count(DISTINCT annotator * 100 + asked_at) FROM waits").fetchone()
    assert counts == (400, 400)
    reader.close()


def test_a_journal_that_cannot_write_says_so(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "run.db")
    journal.write(("INSERT INTO nowhere VALUES(?)", [(1,)]))
    with pytest.raises(JournalFailed, match="nowhere"):
        journal.flush()
    journal.close()


def test_a_shared_process_lives_while_any_of_its_workers_does() -> None:
    hub, clock = make_hub(make_settings(devices={"worker_processes": 1}))
    train(hub)
    offer(hub, 0)
    clock.time = 50.0
    offer(hub, 1)  # of the same process
    assert hub.silent()["worker-0"] == 0.0 and "worker-1" not in hub.silent()
