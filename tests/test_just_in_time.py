"""Selection just in time: when it is due, what goes back to its shard, and what annotators get before any model."""

import contextlib
import sqlite3
from typing import Any

import pytest

from aal.config.errors import Stopped
from aal.coordination.hub import Hub
from aal.coordination.messages import Change, Pending, QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.query_pool import QueryPool
from aal.coordination.schedules.just_in_time import JustInTime
from aal.storage.record_checks import RULES, broken_rule
from aal.storage.resume_state import resume_state_of
from tests.builders import HandClock, MemoryRecorder, make_hub, make_settings

pytestmark = pytest.mark.unit

MANY = {"worker_num": 2, "worker_query_num": 10, "query_batch": 10, "server_train_threshold": 200}


class Run:
    """A hub and roles that act when a test says so; an annotator labels in a second, a selection takes two."""

    def __init__(self, pool: int = 400, **changes: Any) -> None:
        self.settings = make_settings(max_staleness="auto", **{**MANY, "annotators": {"number": 4}, **changes})
        self.record, self.pool = MemoryRecorder(), pool
        self.hub, self.clock = make_hub(self.settings, pool, self.record, HandClock())
        self.leased: list[int] = []

    @property
    def schedule(self) -> JustInTime:
        assert isinstance(self.hub._schedule, JustInTime)
        return self.hub._schedule

    @property
    def waiting(self) -> int:
        return self.hub.status().waiting

    def train(self) -> TrainingJob:
        job = self.hub.job(0)
        assert isinstance(job, TrainingJob)
        self.hub.publish(TrainedModel(job.number, 0, "cnn", "models/a.pt", 1, 0.0, None, 0.5))
        return job

    def grant(self, worker: int) -> SelectionGrant | None:
        grant = self.hub.grant(worker)
        return grant if isinstance(grant, SelectionGrant) else None

    def offer(self, worker: int, grant: SelectionGrant) -> list[int]:
        ids = self.hub.remaining(worker)[: grant.count].tolist()
        self.hub.offer(QueryBatch(worker, grant.batch, ids, "margin", (grant.version,), self.clock.now()))
        return ids

    def draw(self, number: int = 1) -> int:
        """Lets annotators draw, who keep what they get."""
        ids = self.hub.draw(list(range(number)), [self.clock.now()] * number, number)
        self.leased += ids
        return len(ids)

    def label(self, seconds: int) -> None:
        """Lets four annotators answer and draw once a second."""
        for _ in range(seconds):
            for example in self.leased:
                (owner,) = self.hub._pools.queries.leases.holders(example)
                self.hub.answer([example], [owner], [1])
            self.leased = []
            self.clock.time += 1
            with contextlib.suppress(Stopped):
                self.draw(4)

    def started(self) -> "Run":
        """A model is there, the rate of draws and the time of a selection are known."""
        self.train()
        self.label(8)
        grant = self.grant(0)
        assert grant is not None
        self.label(2)
        self.offer(0, grant)
        return self

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            self.record.journal.flush()
            self.record.journal.left_behind(0, database)
            assert broken_rule(database, RULES, classes=3) is None
            return database.execute(sql).fetchall()


def test_before_the_first_model_annotators_get_ids_at_random() -> None:
    run = Run()
    assert run.draw(4) == 4 and run.waiting == 0
    assert isinstance(run.hub.grant(0), Pending)
    rows = run.rows("SELECT strategy, version, newest, worker IN (0, 1), drawn_at FROM queries")
    assert rows == [("random", None, None, 1, 0.0)] * 4
    run.train()
    assert run.draw(4) == 4, "and also after it, while the first selections are made"
    grant = run.grant(0)
    assert grant is not None
    run.clock.time += 2
    run.offer(0, grant)
    assert run.draw(30) == 10, "from now on queries are chosen"


def test_while_the_first_selection_is_made_others_begin_the_longer_it_takes() -> None:
    run = Run()
    run.train()
    run.label(8)
    assert run.grant(0) is not None
    assert run.grant(1) is None
    run.label(3)
    assert run.grant(1) is not None, "in the three seconds twelve were drawn, more than ten"


def test_ids_that_were_given_out_meanwhile_are_left_out_of_a_batch() -> None:
    run = Run(pool=40)
    run.train()
    grant = run.grant(0)
    assert grant is not None
    ids = run.hub.remaining(0)[:10].tolist()
    assert run.draw(20) == 20
    taken = set(run.leased) & set(ids)
    assert taken
    run.hub.offer(QueryBatch(0, grant.batch, ids, "margin", (0,), 0.0))
    assert run.waiting == 10 - len(taken)


def test_a_run_without_labels_begins_with_the_first_answers() -> None:
    run = Run(initial_size=0)
    run.hub._pools.initial = 0
    run.hub._pools.labelled._count = 0
    assert isinstance(run.hub.job(0), Pending)
    run.label(3)
    assert run.hub.status().labels == 8 and isinstance(run.hub.job(0), Pending)
    run.label(1)
    job = run.train()
    assert job.labels == 12, "a batch of answers is enough for the first model"


def test_a_selection_is_due_when_s_falls_to_what_is_drawn_meanwhile() -> None:
    run = Run(query_batch=15).started()
    mark, demand = run.schedule._mark(run.schedule._rate.per_s(run.clock.now()), run.clock.now())
    assert demand == pytest.approx(8, abs=1) and mark > demand  # four annotators, two seconds
    grant = run.grant(1)
    assert grant is not None, "fifteen are fewer than the mark"
    assert run.grant(0) is None, "thirty wait or are being selected"
    run.clock.time += 2
    run.offer(1, grant)
    while run.grant(0) is None:
        assert run.waiting > 0, "nobody finds S empty"
        run.label(1)
    reasons = run.rows("SELECT reason, waiting + selecting <= mark FROM grants")
    assert reasons == [("low", 1)] * 2, "of the batches that are there"


def test_no_training_is_waited_for() -> None:
    run = Run().started()
    for number in range(30):
        worker = number % 2
        if (grant := run.grant(worker)) is not None:
            run.clock.time += 2
            run.offer(worker, grant)
        run.label(1)
    assert run.hub.status().labels > 60, "with the one model of the start"


def test_queries_of_an_older_model_go_back_when_newer_ones_come() -> None:
    run = Run(query_batch=40, server_train_threshold=10).started()
    assert run.waiting > 20
    before = set(run.hub._pools.queries._waiting)
    held = set(run.leased)
    run.train()
    grant = run.grant(1)
    assert grant is not None and grant.version == 1
    assert grant.decision is not None and grant.decision.reason == "newer model"
    assert set(run.hub._pools.queries._waiting) == before, "until the new ones are there, nothing goes"
    offered = run.offer(1, grant)
    now = set(run.hub._pools.queries._waiting)
    mark, _ = run.schedule._mark(run.schedule._rate.per_s(run.clock.now()), run.clock.now())
    assert set(offered) <= now and len(now) >= mark
    assert not held & (before - now), "what is on lease stays"
    joined = "SELECT reason FROM grants JOIN selections USING (worker, batch) WHERE version = 1"
    assert run.rows(joined) == [("newer model",)]
    gone = run.rows("SELECT item, version FROM withdrawals")
    assert {example for example, _ in gone} == before - now and {version for _, version in gone} == {1}
    assert set(run.hub.remaining(0).tolist()) >= before - now, "they can be chosen again"
    assert run.grant(0) is None


def test_withdrawing_can_be_switched_off() -> None:
    run = Run(query_batch=40, server_train_threshold=10, withdraw_stale=False).started()
    waiting = run.waiting
    run.train()
    assert run.grant(1) is None and run.waiting == waiting


def test_an_id_that_comes_and_goes_is_counted_and_bought_once() -> None:
    run = Run(worker_num=1, worker_query_num=4, query_batch=40, server_train_threshold=10)
    run.started()
    for _ in range(200):
        if run.hub.status().finished:
            break
        with contextlib.suppress(Stopped):
            if isinstance(job := run.hub.job(0), TrainingJob):
                run.hub.publish(TrainedModel(job.number, 0, "cnn", "models/a.pt", 1, 0.0, None, 0.5))
            if (grant := run.grant(0)) is not None:
                run.offer(0, grant)
            run.label(1)
    assert run.hub.status().finished
    ((offers, withdrawn),) = run.rows("SELECT (SELECT count(*) FROM offers), (SELECT count(*) FROM withdrawals)")
    assert withdrawn > 0 and offers - withdrawn == 160
    assert run.rows("SELECT count(*), count(DISTINCT item), count(label) FROM queries") == [(160, 160, 160)]
    assert run.rows("SELECT sum(items) FROM selections") == [(offers,)]


def test_a_worker_that_is_late_is_not_counted_on() -> None:
    run = Run(query_batch=15).started()
    assert run.grant(1) is not None
    refused = run.hub.grant(0)
    assert isinstance(refused, Pending) and refused.at is not None
    run.draw(14)
    assert run.waiting == 1
    run.clock.time = refused.at - 0.01
    assert run.grant(0) is None, "worker 1 is counted on"
    run.clock.time = refused.at
    assert run.grant(0) is not None, "worker 1 hangs"


def test_workers_select_in_the_order_in_which_they_came() -> None:
    run = Run(worker_num=3, query_batch=15).started()
    assert run.grant(1) is not None
    for worker in (2, 0):
        assert run.grant(worker) is None
    run.draw(14)
    run.clock.time += 0.5
    assert run.grant(0) is None, "worker 2 has waited longer"
    run.clock.time += 1
    assert run.grant(0) is not None, "worker 2 has not asked for a second: it hangs"


def test_when_every_label_is_bought_annotators_are_done() -> None:
    run = Run(pool=8, worker_query_num=1, server_train_threshold=20)
    run.train()
    run.label(3)
    assert run.hub.status().labels == 8
    with pytest.raises(Stopped):
        run.hub.draw([0], [0.0], 1)
    assert run.hub.status().idle_annotators == 0 and not run.hub.status().finished


def resumed(run: Run) -> Hub:
    """A hub that goes on with what is on record."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        run.record.journal.flush()
        run.record.journal.left_behind(0, database)
        state = resume_state_of(database)
    return make_hub(run.settings, run.pool, clock=run.clock, state=state)[0]


def test_a_resumed_run_knows_what_was_withdrawn() -> None:
    run = Run(query_batch=40, server_train_threshold=10).started()
    run.train()
    grant = run.grant(1)
    assert grant is not None
    run.offer(1, grant)
    again = resumed(run)
    assert again._pools.offered == run.hub._pools.offered
    assert again._schedule.still_to_offer() == run.hub._schedule.still_to_offer()
    versions = again._pools.queries._versions
    assert versions == run.hub._pools.queries._versions
    assert again._pools.queries.older(9) == run.hub._pools.queries.older(9), "what was on lease is never withdrawn"


def test_a_resumed_run_knows_how_fast_it_went_on() -> None:
    again = resumed(Run().started())
    grant: object = None
    while not isinstance(grant, SelectionGrant):
        assert again.draw([0], [0.0], 1), "a selection is due before S is empty"
        grant = again.grant(1)
    assert again.status().waiting > 0 and grant.decision is not None
    assert grant.decision.mark >= 8 and grant.decision.selection_s == pytest.approx(2.0)


def test_a_batch_that_was_cut_wakes_workers_that_were_refused() -> None:
    changes: list[Change] = []
    run = Run()
    run.hub._notify = changes.append
    run.train()
    grant = run.grant(0)
    assert grant is not None
    ids = run.hub.remaining(0)[: grant.count].tolist()
    run.draw(200)
    changes.clear()
    run.hub.offer(QueryBatch(0, grant.batch, ids, "margin", (0,), 0.0))
    assert Change.ROOM in changes[-1]


def test_a_selection_that_was_due_and_is_no_longer_does_not_seem_long() -> None:
    run = Run(query_batch=15).started()
    while run.schedule._due_since is None:
        run.label(1)
    run.clock.time += 3600  # a break, in which nobody draws, so that the mark falls
    run.draw(1)
    assert run.schedule._due_since is None or run.schedule._due_since == run.clock.now()


def test_a_pool_that_is_too_small_for_the_mark_still_takes_whole_batches() -> None:
    run = Run(query_pool_size=12).started()
    assert run.grant(1) is None, "ten wait, two have room"
    run.draw(8)
    grant = run.grant(1)
    assert grant is not None and grant.count == 10


def test_of_many_who_ask_nobody_waits_while_s_holds_queries() -> None:
    run = Run(query_batch=100, worker_query_num=2).started()
    run.hub.draw([0, 1], [0.0, 0.0], 3000)  # the others ask at once
    assert not run.schedule._missed and run.waiting > 0


def test_only_what_nobody_has_drawn_is_withdrawn_and_the_oldest_first() -> None:
    pool = QueryPool(100, seed=0)
    pool.offer(range(5), version=1)
    pool.offer(range(5, 10), version=0)
    (drawn,) = pool.draw([0], deadline=1.0)
    pool.expire(2.0)  # it is back in S, and its annotator may still answer
    assert pool.older(2) == 9 and pool.older(1) == 5 - (drawn >= 5)
    assert pool.withdraw(version=0, count=3) == []
    first = pool.withdraw(version=2, count=4)
    assert len(first) == 4 and all(example >= 5 for example in first)
    rest = pool.withdraw(version=2, count=100)
    assert set(first) | set(rest) == set(range(10)) - {drawn}
    assert pool.waiting == 1 and pool.settle(drawn, annotator=0)
    assert pool.older(2) == 0


def test_the_first_model_is_of_the_initial_labels_alone() -> None:
    """So that it is the same for every run of a seed, however fast annotators are."""
    run = Run()
    run.label(3)
    assert run.hub.status().labels == 8
    first = run.hub.job(0)
    assert isinstance(first, TrainingJob) and first.labels == 4
    run.label(60)
    assert isinstance(run.hub.job(1), Pending), "the initial model comes first"
