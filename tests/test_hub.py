"""The hub as a whole: whatever the settings and the order of events, a run ends with every label bought and used."""

import contextlib
import pathlib
import random
import sqlite3
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aal.config.errors import RecordFailed, Stopped
from aal.config.settings import Settings
from aal.coordination.hub import Hub
from aal.coordination.messages import (
    Change,
    Computing,
    Pending,
    QueryBatch,
    SelectionGrant,
    TrainedModel,
    TrainingJob,
)
from aal.coordination.monitor import HubMonitor
from aal.coordination.partition import Partition
from aal.coordination.shards import LABELLED, OUTSIDE, QUERIED, RETIRED, UNLABELLED
from aal.storage.journal import Journal
from aal.storage.resume_state import ResumeState, resume_state_of
from aal.storage.run_recorder import RunRecorder
from tests.builders import HandClock, MemoryRecorder, make_hub, make_partition, make_settings

pytestmark = pytest.mark.unit
COLUMNS = "item worker strategy version newest offered_at drawn_at annotator answered_at label arrival"
NO_SHRINK = (Phase.explicit, Phase.reuse, Phase.generate)  # a run that never ends would take minutes to shrink


class Roles:
    """Servers, workers and annotators that act one small step at a time, in an order that a seed draws."""

    def __init__(self, hub: Hub, clock: HandClock, s: Settings, seed: int, deaths: float) -> None:
        self.hub, self.clock, self.settings = hub, clock, s
        self.random = random.Random(seed)
        self.deaths = deaths
        shards = len(make_partition(s, 10).shards)
        self.jobs: dict[int, TrainingJob | None] = dict.fromkeys(range(s.server_num))
        self.grants: dict[int, tuple[SelectionGrant, list[int]] | None] = dict.fromkeys(range(shards))
        self.held: dict[int, list[int]] = {annotator: [] for annotator in range(3)}
        self.trained: list[tuple[int, int]] = []  # target and labels
        self.answered: dict[int, int] = {}

    def step(self) -> bool:
        """One step of a random role; False when no role is left."""
        everyone: list[tuple[str, int]] = [("server", i) for i in self.jobs] + [("worker", i) for i in self.grants]
        if not everyone:
            return False
        everyone += [("annotator", i) for i in self.held]
        name, index = self.random.choice(everyone)
        self.clock.time += self.random.random()
        if self.random.random() < self.deaths:
            self.die(name, index)
        else:
            getattr(self, name)(index)
        return True

    def die(self, name: str, index: int) -> None:
        self.hub.release("annotators" if name == "annotator" else name, index)
        if name == "server":
            self.jobs[index] = None
        elif name == "worker":
            self.grants[index] = None
        else:  # all of them, for they share a process
            self.held = {annotator: [] for annotator in self.held}

    def server(self, index: int) -> None:
        job = self.jobs[index]
        try:
            if job is None:
                self.jobs[index] = _given(self.hub.job(index))
            else:
                self.read(job)
                self.hub.publish(TrainedModel(job.number, index, "cnn", f"{job.number}", 1, 0.0, None, 0.5))
                self.trained.append((job.target, job.labels))
                self.jobs[index] = None
        except Stopped:
            del self.jobs[index]

    def read(self, job: TrainingJob) -> None:
        assert len(self.hub.labels(0, job.labels)[0]) == job.labels

    def compare(self, state: ResumeState) -> None:
        found = {example for example, _ in state.labels}
        assert found == set(self.answered), "an acknowledged answer is never lost"

    def worker(self, index: int) -> None:
        held = self.grants[index]
        try:
            if held is None:
                if (grant := _given(self.hub.grant(index))) is not None:
                    assert_newest_of_each(self.hub, grant, self.settings)
                    remaining = self.hub.remaining(index).tolist()
                    self.grants[index] = (grant, self.random.sample(remaining, grant.count))
            else:
                grant, items = held
                versions = tuple(model.version for model in grant.models)
                self.hub.offer(QueryBatch(index, grant.batch, items, "random", versions, 0.0))
                self.grants[index] = None
        except Stopped:
            del self.grants[index]

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


def _given(answer: Any) -> Any:
    """What the hub gave, or None for not yet."""
    return None if isinstance(answer, Pending) else answer


def places(hub: Hub, partition: Partition) -> list[int]:
    """Every id, once for each place it is in."""
    pools = hub._pools
    unlabelled = [example for worker in range(pools.workers) for example in pools.remaining(worker).tolist()]
    labelled = pools.labelled.between(0, pools.labels)[0].tolist()
    outside = [*partition.test.tolist(), *partition.validation.tolist()]
    queried = [*dict.fromkeys([*pools.queries._waiting, *pools.queries.leases.ids])]
    retired = np.flatnonzero(pools._state == RETIRED).tolist()
    labelled += [
        one for one in np.flatnonzero(pools._state == LABELLED).tolist() if one not in labelled
    ]  # without a label
    for ids, state in ((outside, OUTSIDE), (labelled, LABELLED), (queried, QUERIED), (unlabelled, UNLABELLED)):
        assert (pools._state[np.array(ids, np.int64)] == state).all()
    assert len(unlabelled) == sum(map(pools.left, range(pools.workers)))
    held_back = [example for example in partition.held_out.ids.tolist() if pools._state[example] == UNLABELLED]
    assert len(held_back) == pools.held_back and not set(held_back) & set(unlabelled)
    unlabelled += held_back
    return sorted(unlabelled + queried + labelled + outside + retired)


drawn_roles = st.fixed_dictionaries(
    {
        "server_num": st.integers(1, 3),
        "worker_num": st.integers(1, 4),
        "worker_query_num": st.integers(1, 5),
        "query_batch": st.integers(1, 6),
        "threshold": st.integers(1, 60),
        "max_staleness": st.sampled_from([0, 1, 2, None, "auto", "auto"]),
        "server_train_num": st.sampled_from([None, 1, 2, 5]),
        "mode": st.sampled_from(["async", "async", "sync"]),
        "pool": st.integers(8, 100),
        "lease_s": st.sampled_from([3.0, 1000.0]),
        "targets": st.sampled_from([None, None, 1, 2, 4]),
    }
)


def live(roles: Roles, partition: Partition, steps: int) -> bool:
    """Lets the roles take at most so many steps, looking whether every id is in its one place, and who computes."""
    for step in range(steps):
        if not roles.step():
            return True
        with contextlib.suppress(Stopped):
            held = (sum(one is not None for one in held.values()) for held in (roles.jobs, roles.grants))
            assert roles.hub.computing() == Computing(*held)
        if step % 16 == 0:
            assert_each_in_one_place(roles.hub, partition)
    return False


def assert_newest_of_each(hub: Hub, grant: SelectionGrant, s: Settings) -> None:
    """A grant carries the newest version of each target; just in time, of those that have one."""
    newest = {model.target: model for model in hub._schedule.models}
    assert list(grant.models) == [newest[target] for target in sorted(newest)]
    assert len(newest) == s.target_num or s.max_staleness == "auto"


def assert_each_in_one_place(hub: Hub, partition: Partition) -> None:
    assert places(hub, partition) == list(range(6 + len(partition.initial) + sum(map(len, partition.shards))))


def resumed(roles: Roles, pool: int, lost: int, held_out: int = 0) -> Roles:
    """All processes of a run were killed; others go on from what is on disk."""
    record = roles.hub._record
    assert isinstance(record, MemoryRecorder)
    again = MemoryRecorder()
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        record.journal.left_behind(lost, database)
        state = resume_state_of(database)
        lines = [line for line in database.iterdump() if line.startswith("INSERT")]
        again.journal.changes = [((line, [()]),) for line in lines]
    again.flush()
    hub, clock = make_hub(roles.settings, pool, again, roles.clock, state, held_out=held_out)
    roles.compare(state)
    assert_each_in_one_place(hub, make_partition(roles.settings, pool, held_out))
    successor = type(roles)(hub, clock, roles.settings, roles.random.randrange(2**20), roles.deaths)
    successor.answered, successor.trained = roles.answered, roles.trained
    return successor


@settings(max_examples=400, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=drawn_roles,
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
    if number := drawn.pop("targets"):
        drawn["targets"] = [{"name": f"target {target}", "model": "cnn"} for target in range(number)]
    s = make_settings(**drawn, server_train_threshold=min(threshold, budget), annotators={"lease_s": lease})
    partition = make_partition(s, pool)
    roles = Roles(*make_hub(s, pool), s, seed, deaths)
    for steps, lost in crashes:
        if live(roles, partition, steps):
            break
        roles = resumed(roles, pool, lost)
    assert live(roles, partition, 20_000), f"the run never ends: {roles.hub.status()}"
    assert roles.hub.status().finished
    assert_each_in_one_place(roles.hub, partition)
    shards = [min(len(shard), s.worker_query_num * s.query_batch) for shard in partition.shards]
    expected = min(s.budget, pool) if s.mode == "sync" or s.max_staleness == "auto" else sum(shards)
    assert len(roles.answered) == expected
    for target in range(s.target_num):
        trained = [labels for of, labels in roles.trained if of == target]
        assert max(trained) == 4 + expected, "the last training of each target uses every label"
        if s.server_train_num is not None:
            assert len(trained) <= 1 + s.server_train_num


def train(hub: Hub, server: int = 0) -> TrainingJob | None:
    job = hub.job(server)
    if isinstance(job, Pending):
        return None
    hub.publish(TrainedModel(job.number, server, "cnn", "p", 1, 0.0, None, 0.5))
    return job


def offer(hub: Hub, worker: int) -> bool:
    """Lets a worker take its grant, if it has one."""
    grant = hub.grant(worker)
    if isinstance(grant, Pending):
        return False
    items = hub.remaining(worker)[: grant.count].tolist()
    hub.offer(QueryBatch(worker, grant.batch, items, "random", (grant.version,), 0.0))
    return True


def answer_all(hub: Hub) -> int:
    count = 0
    with contextlib.suppress(Stopped):  # when every label is bought
        while items := hub.draw([0], [0.0], 1):
            count += sum(hub.answer(items, [0], [2]))
    return count


def three_trainings(hub: Hub) -> None:
    """Lets one server train three times, and two workers select after each of the first two."""
    for _ in range(2):
        train(hub)
        offer(hub, 0)
        offer(hub, 1)
        answer_all(hub)
    train(hub)


def test_a_bound_of_one_lets_selection_run_one_round_ahead() -> None:
    hub, _ = make_hub(make_settings())
    assert not offer(hub, 0), "no model yet"
    train(hub)
    assert offer(hub, 0) and offer(hub, 0) and offer(hub, 1) and offer(hub, 1)
    assert not offer(hub, 0), "batch 2 belongs to round 2 and needs version 1"
    assert answer_all(hub) == 20
    job = train(hub)
    assert job is not None and job.labels == 24, "the surplus over the threshold is absorbed"
    assert offer(hub, 0) and offer(hub, 1)


@pytest.mark.parametrize("first", [0, 1])
def test_the_initial_model_is_of_the_first_network_whichever_server_asks_first(first: int) -> None:
    hub, _ = make_hub(make_settings(server_num=2, models=["cnn", "resnet18"]))
    initial = train(hub, first)
    assert initial is not None and initial.network == 0
    networks = []
    for server in (0, 1):
        for worker in (0, 1):
            offer(hub, worker)
        answer_all(hub)
        job = train(hub, server)
        assert job is not None
        networks.append(job.network)
    assert networks == [0, 1], "the others are dealt out to the servers in turn"


def test_free_workers_do_not_wait_for_models() -> None:
    hub, _ = make_hub(make_settings(max_staleness=None))
    train(hub)
    assert [offer(hub, 0) for _ in range(3)] == [True] * 3
    with pytest.raises(Stopped):
        hub.grant(0)


def test_sync_takes_turns() -> None:
    hub, _ = make_hub(make_settings(mode="sync"))
    train(hub)
    assert offer(hub, 0)
    assert not offer(hub, 0), "labels come first"
    assert isinstance(hub.job(0), Pending)
    answer_all(hub)
    assert not offer(hub, 0), "a training comes first"
    assert train(hub) is not None
    assert offer(hub, 0)


def test_the_server_that_has_waited_longest_is_served_and_the_job_of_a_dead_one_returns() -> None:
    hub, _ = make_hub(make_settings(server_num=3))
    first = hub.job(2)
    assert isinstance(first, TrainingJob) and first.number == 0
    assert isinstance(hub.job(0), Pending) and isinstance(hub.job(1), Pending)
    hub.release("server", 2)
    assert isinstance(hub.job(1), Pending), "server 0 has waited longer"
    assert hub.job(0) == first
    with pytest.raises(ValueError, match="does not hold"):
        hub.publish(TrainedModel(0, 2, "cnn", "p", 1, 0.0, None, 0.5))


def test_a_full_pool_makes_the_worker_wait_and_drops_nothing() -> None:
    hub, _ = make_hub(make_settings(query_pool_size=5))
    train(hub)
    assert offer(hub, 0)
    assert hub.grant(1) == Pending(Change.ROOM, in_turn=True)
    assert answer_all(hub) == 5
    assert isinstance(hub.grant(0), SelectionGrant)
    assert hub.grant(1) == Pending(Change.ROOM, in_turn=True), "the room is kept for what worker 0 is selecting"
    hub.release("worker", 0)
    assert offer(hub, 1)


def test_offers_of_foreign_or_repeated_items_are_refused() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    for items in ([10, 10], [69], [6], [0]):
        assert isinstance(hub.grant(0), SelectionGrant)
        with pytest.raises(ValueError, match="worker 0"):
            hub.offer(QueryBatch(0, 0, items, "random", (0,), 0.0))
    with pytest.raises(ValueError, match="not due"):
        hub.offer(QueryBatch(0, 1, [10], "random", (0,), 0.0))


def test_a_label_outside_the_classes_is_refused() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    offer(hub, 0)
    (item,) = hub.draw([0], [0.0], 1)
    with pytest.raises(ValueError, match="label 3"):
        hub.answer([item], [0], [3])
    assert hub.answer([item], [0], [2]) == [True]


def test_an_acknowledged_answer_is_on_disk_and_every_row_tells_its_story(tmp_path: pathlib.Path) -> None:
    hub, clock = make_hub(make_settings(), record=RunRecorder(tmp_path / "run.db"))
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
    hub, clock = make_hub(
        make_settings(query_batch=1, server_train_threshold=2), record=RunRecorder(tmp_path / "run.db")
    )
    train(hub)
    offer(hub, 0)
    reader = sqlite3.connect(tmp_path / "run.db")

    def rows() -> list[Any]:
        hub._record.flush()
        return reader.execute("SELECT drawn_at, annotator, answered_at, label FROM queries").fetchall()

    try:
        assert rows() == [(None, None, None, None)]
        for annotator, drawn_at in ((3, 1.0), (8, 1e6)):  # the first lease has run out by then
            clock.time = drawn_at
            (item,) = hub.draw([annotator], [0.5], 1)
            assert rows() == [(drawn_at, annotator, None, None)]
        clock.time = 1e6 + 1
        assert hub.answer([item, item], [3, 8], [1, 2]) == [True, False], "the first to answer, though late"
        assert rows() == [(1.0, 3, 1e6 + 1, 1)]
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
    with pytest.raises(RecordFailed, match="nowhere"):
        journal.flush()
    journal.close()


def test_a_model_is_announced_when_it_is_on_disk_and_draws_do_not_wait_for_that() -> None:
    """While the disk is slow, the lock is free: annotators draw, and workers select with the version before."""
    hub: Hub

    class SlowDisk(MemoryRecorder):
        def flush(self) -> None:
            if drew.is_set():
                super().flush()
                return
            drew.set()
            seen.append((hub.status().version, hub.draw([0], [0.0], 1)))

    drew = threading.Event()
    seen: list[tuple[int | None, list[int]]] = []
    drew.set()
    hub, _ = make_hub(make_settings(server_num=2), record=SlowDisk())
    train(hub)
    offer(hub, 0)
    offer(hub, 1)
    answer_all(hub)
    offer(hub, 0)
    job = hub.job(0)
    assert isinstance(job, TrainingJob)
    drew.clear()
    assert hub.publish(TrainedModel(job.number, 0, "cnn", "p", 1, 0.0, None, 0.5)) == 1
    ((version, ids),) = seen
    assert version == 0 and len(ids) == 1
    assert hub.status().version == 1


def test_labels_of_one_owner_are_those_of_its_shard() -> None:
    hub, _ = make_hub(make_settings())
    train(hub)
    offer(hub, 0)
    offer(hub, 1)
    answer_all(hub)
    assert sorted(hub.labels(0, 99, owner=0)[0].tolist()) == [10, 11, 12, 13, 14]
    assert sorted(hub.labels(0, 99, owner=1)[0].tolist()) == [40, 41, 42, 43, 44]
    assert len(hub.labels(0, 99)[0]) == 14


def test_what_changes_is_emitted() -> None:
    emitted: list[Change] = []
    hub, _ = make_hub(make_settings(query_batch=1, server_train_threshold=2), notify=emitted.append)

    def changes() -> Change:
        found = Change(0)
        while emitted:
            found |= emitted.pop()
        return found

    train(hub)
    assert changes() == Change.MODELS
    offer(hub, 0)
    assert changes() == Change.QUERIES | Change.ROOM
    ids = hub.draw([0], [0.0], 1)
    assert changes() == Change.ROOM | Change.LEASES
    hub.answer(ids, [0], [0])
    assert changes() == Change.LABELS | Change.IDLE
    hub.stop()
    assert changes() == Change.STOP


def test_a_monitor_knows_who_makes_progress_and_who_failed() -> None:
    record = MemoryRecorder()
    hub, _ = make_hub(make_settings(), record=record)
    monitor = HubMonitor(hub)
    monitor.heartbeat("server-0")
    monitor.heartbeat("server-0")
    assert monitor.heartbeat("worker-0") == Computing(0, 0)
    for free_cores in (2.0, 1.0):
        monitor.share_cores(free_cores)
    assert monitor.heartbeats() == {"server-0": 2, "worker-0": 1}
    monitor.report_failure("worker-0", "ValueError: no")
    assert monitor.take_failures() == ["worker-0: ValueError: no"] and monitor.take_failures() == []
    assert monitor.heartbeat("server-0") == Computing(0, 0, free_cores=1.0)
    monitor.stop()
    with pytest.raises(Stopped):
        monitor.heartbeat("server-0")
    assert monitor.close("interrupted") is None
    ((_, facts),) = record.journal.changes[-1]
    assert ("ended", "interrupted") in facts and ("free_cores", "1.5") in facts
