"""The hub of a federation: whatever the order of events, each client buys its share, and every version is whole."""

import contextlib
import dataclasses
import math
import random
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aal.config.errors import Stopped, UserError
from aal.config.settings import Settings
from aal.coordination.answers import CANNOT_TELL
from aal.coordination.client_pools import ClientQueues
from aal.coordination.federated_hub import FederatedHub
from aal.coordination.federation import (
    AggregatedModel,
    AggregationJob,
    Contribution,
    EvaluatedModel,
    LocalJob,
    LocalModel,
    Share,
)
from aal.coordination.messages import ModelRef, Pending, QueryBatch, SelectionGrant
from aal.coordination.parts import part_of
from aal.coordination.query_pool import QueryPool
from aal.coordination.schedules.federated import Federated
from aal.coordination.shards import RETIRED
from aal.storage.record_checks import RULES, broken_rule
from aal.storage.resume_state import resume_state_of
from tests.builders import HandClock, MemoryRecorder, make_hub, make_partition, make_settings

pytestmark = pytest.mark.unit
NO_SHRINK = (Phase.explicit, Phase.reuse, Phase.generate)
ANNOTATORS = 2  # of each client


class Roles:
    """Clients, annotators, a server and an evaluator that act one step at a time, in an order that a seed draws."""

    def __init__(
        self, hub: FederatedHub, clock: HandClock, s: Settings, seed: int, deaths: float, doubts: float
    ) -> None:
        self.hub, self.clock, self.settings, self.random, self.deaths = hub, clock, s, random.Random(seed), deaths
        self.tasks: dict[int, LocalJob | SelectionGrant | None] = dict.fromkeys(range(s.worker_num))
        self.held: dict[int, list[int]] = {number: [] for number in range(ANNOTATORS * s.worker_num)}
        self.job: AggregationJob | None = None
        self.model: ModelRef | None = None
        self.shares: dict[int, tuple[Share, ...]] = {}  # by version
        self.doubts = doubts  # share of the answers without a label
        self.answered: dict[int, int] = {}
        self.tested: set[int] = set()

    def step(self) -> bool:
        """One step of a random role; False when the run is over."""
        kinds = ["client"] * 4 + ["annotator"] * 4 + ["server"] * 2 + ["evaluator"]
        name, index = self.random.choice(kinds), self.random.randrange(self.settings.worker_num)
        self.clock.time += self.random.random()
        try:
            if self.random.random() < self.deaths:
                self.die(name, index)
            else:
                getattr(self, name)(index)
        except Stopped:
            return not self.hub.status().finished
        return True

    def die(self, name: str, index: int) -> None:
        self.hub.release("annotators" if name == "annotator" else name, index if name == "client" else 0)
        if name == "client":
            self.tasks[index] = None
        elif name == "server":
            self.job = None
        elif name == "evaluator":
            self.model = None
        else:
            self.held = {annotator: [] for annotator in self.held}

    def client(self, index: int) -> None:
        task = self.tasks[index]
        if task is None:
            given = self.hub.task(index)
            self.tasks[index] = None if isinstance(given, Pending) else given
            return
        self.tasks[index] = None
        if isinstance(task, SelectionGrant):
            ids = self.random.sample(self.hub.remaining(index).tolist(), task.count)
            self.hub.offer(QueryBatch(index, task.batch, ids, "random", (task.version,), 0.0))
            return
        own, _ = self.hub.own_labels(index, task.labels)
        assert (self.hub._pools._owner[own] == index).all()
        start = task.start.version if task.start else None
        assert task.start is None or task.start.path == f"v{task.start.version}"
        drops = self.random.random() < 0.1
        path = "" if drops else f"{task.number}"
        self.hub.deliver(LocalModel(task.number, index, task.version, len(own), start, path, 0.0, dropped_out=drops))

    def server(self, _: int) -> None:
        if self.job is None:
            given = self.hub.job(0)
            assert isinstance(given, Pending | AggregationJob)
            self.job = None if isinstance(given, Pending) else given
            return
        job, self.job = self.job, None
        shares = tuple(Share(one.model.client, one.model.job, 1.0, one.staleness) for one in job.contributions)
        version = 0 if job.start is None else job.start.version + 1
        if job.start is None:
            version = job.cycle * (self.settings.federated.rounds if self.settings.federated else 1)
        self.hub.publish(AggregatedModel(job.number, 0, "cnn", f"v{version}", 1, 0.0, None, None, shares=shares))
        self.shares[version] = shares

    def evaluator(self, _: int) -> None:
        if self.model is None:
            given = self.hub.evaluation(0)
            self.model = None if isinstance(given, Pending) else given
            return
        self.hub.tested(EvaluatedModel(self.model.version, 0.5, [(0, 0, 4)]))
        assert self.hub.status().tested_version == self.model.version
        self.tested.add(self.model.version)
        self.model = None

    def annotator(self, index: int) -> None:
        number = self.random.randrange(ANNOTATORS) * self.settings.worker_num + index
        held = self.held[number]
        if held:
            example = held.pop()
            assert self.hub._pools._owner[example] == index, "annotators get queries of their own client"
            label = CANNOT_TELL if self.random.random() < self.doubts else 1
            if self.hub.answer([example], [number], [label]) == [True]:
                self.answered[example] = index
            return
        with contextlib.suppress(Stopped):
            held.extend(self.hub.draw([number], [self.clock.now()], 1))


def resumed(roles: Roles, pool: int, lost: int, lose_model: bool) -> Roles:
    """All processes were killed; others go on from what is on disk, where the newest version's file may be lost."""
    record = roles.hub._record
    assert isinstance(record, MemoryRecorder)
    again = MemoryRecorder()
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        record.journal.left_behind(lost, database)
        state = resume_state_of(database)
        assert broken_rule(database, {key: RULES[key] for key in RULES if "file" not in key}, classes=3) is None
        lines = [line for line in database.iterdump() if line.startswith("INSERT")]
        again.journal.changes = [((line, [()]),) for line in lines]
    again.flush()
    if lose_model and state.models:
        state = dataclasses.replace(state, lost=frozenset({state.models[-1][0].version}))
    hub, clock = make_hub(roles.settings, pool, again, roles.clock, state)
    assert {said.example for said in state.said} == set(roles.answered), "an acknowledged answer is never lost"
    assert isinstance(hub, FederatedHub)
    successor = Roles(hub, clock, roles.settings, roles.random.randrange(2**20), roles.deaths, roles.doubts)
    successor.answered, successor.shares, successor.tested = roles.answered, roles.shares, roles.tested
    return successor


@settings(max_examples=120, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
@given(
    clients=st.integers(1, 4),
    batches=st.integers(1, 3),
    batch=st.integers(1, 5),
    pool=st.integers(12, 60),
    rounds=st.integers(1, 4),
    fraction=st.sampled_from([0.4, 1.0]),
    all_in_last=st.booleans(),
    buffer=st.sampled_from([None, None, 1, 2]),
    seed=st.integers(0, 2**20),
    deaths=st.sampled_from([0.0, 0.05]),
    answers=st.sampled_from([1, 2]),
    doubts=st.sampled_from([0.0, 0.1, 0.9]),
    crashes=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 10), st.booleans()), max_size=3),
)
def test_whatever_happens_each_client_buys_its_share_and_every_version_is_made(
    clients: int,
    batches: int,
    batch: int,
    pool: int,
    rounds: int,
    fraction: float,
    all_in_last: bool,
    buffer: int | None,
    seed: int,
    deaths: float,
    answers: int,
    doubts: float,
    crashes: list[tuple[int, int, bool]],
) -> None:
    federated: dict[str, Any] = {"rounds": rounds, "all_in_last_round": all_in_last}
    federated |= {"fraction": fraction} if buffer is None else {"asynchronous": {"buffer": min(buffer, clients)}}
    s = federation(clients, batches, batch, federated, answers)
    hub, clock = make_hub(s, pool)
    assert isinstance(hub, FederatedHub)
    roles = Roles(hub, clock, s, seed, deaths, doubts)
    for steps, lost, lose_model in crashes:
        if not all(roles.step() for _ in range(steps)):
            break
        roles = resumed(roles, pool, lost, lose_model)
    assert not all(roles.step() for _ in range(30_000)), f"the run never ends: {roles.hub.status()}"
    status, models = roles.hub.status(), roles.hub._schedule.models
    assert status.finished and models[-1].version in roles.tested
    if buffer is not None:
        asked = {model.version for model in models if (model.version + 1) % rounds == 0}
        assert roles.tested == asked | {models[-1].version}, "no other version is tested, after a resume either"
    partition = make_partition(s, pool)
    for client, shard in enumerate(partition.shards):
        own = [example for example, owner in roles.answered.items() if owner == client]
        assert all(len(roles.hub._pools.answers.of(example)) == 0 for example in own), "no image waits for answers"
        size = len(partition.owned(client))
        assert len(own) == min(len(shard), batches * -(-size * clients * batch // (pool + 4)))
    given_up = sum(roles.hub._pools._state == RETIRED)
    assert models[-1].labels == 4 + len(roles.answered) - given_up and (doubts or not given_up)
    if buffer is None:
        assert [model.version for model in models] == list(range(rounds * (batches + 1)))
        for version, shares in roles.shares.items():
            is_last = (version + 1) % rounds == 0
            most = clients if is_last and all_in_last else math.ceil(fraction * clients)
            assert len({share.client for share in shares}) == len(shares) <= most
            assert all(share.staleness == 0 for share in shares)


def federation(clients: int, batches: int, batch: int, federated: dict[str, Any], answers: int = 1) -> Settings:
    """The settings of a federation."""
    shape = {"worker_num": clients, "worker_query_num": batches, "query_batch": batch}
    return make_settings(
        mode="federated",
        val_size=0,
        trainer="fit",
        server_train_threshold=1,
        federated=federated,
        annotators={"number": ANNOTATORS, "answers_per_item": answers},
        **shape,
    )


@pytest.mark.parametrize(("clients", "fraction", "number"), [(25, 0.28, 7), (10, 0.8, 8), (10, 0.71, 8), (10, 0.01, 1)])
def test_the_share_of_clients_in_a_round_is_exact(clients: int, fraction: float, number: int) -> None:
    hub, _ = make_hub(federation(clients, 1, 1, {"rounds": 2, "fraction": fraction}))
    schedule = hub._schedule
    assert isinstance(schedule, Federated)
    assert len(schedule.participants(0)) == number
    assert len(schedule.participants(1)) == clients


def test_a_process_gets_the_labels_of_its_own_client_alone() -> None:
    hub, _ = make_hub(federation(2, 1, 2, {"rounds": 1}))
    part = part_of(hub, "client", (1,))
    ids, _ = part.own_labels(1, 10)
    assert sorted(ids.tolist()) == [7, 9]
    for call in (lambda: part.own_labels(0, 10), lambda: part.task(0), lambda: part.remaining(0)):
        with pytest.raises(ValueError, match="client 0 is not in this process"):
            call()
    with pytest.raises(ValueError, match="client 0 is not in this process"):
        part.deliver(LocalModel(0, 0, 0, 1, None, "", 0.0))
    assert vars(part_of(hub, "aggregator", (0,))).keys() == {"job", "publish"}
    assert vars(part_of(hub, "evaluator", (0,))).keys() == {"evaluation", "tested"}


def test_annotators_of_several_clients_do_not_draw_together() -> None:
    hub, _ = make_hub(federation(2, 1, 2, {"rounds": 1}))
    with pytest.raises(ValueError, match="several clients"):
        hub.draw([0, 1], [0.0, 0.0], 2)


def test_a_client_selects_knowing_its_own_unanswered_queries_alone() -> None:
    hub, _ = make_hub(federation(2, 3, 2, {"rounds": 1, "asynchronous": {"buffer": 1}}))
    assert isinstance(hub, FederatedHub)
    for client in (0, 1):
        task = hub.task(client)
        assert isinstance(task, LocalJob)
        hub.deliver(LocalModel(task.number, client, task.version, 2, None, f"local-{client}", 0.0))
    job = hub.job(0)
    assert isinstance(job, AggregationJob)
    hub.publish(AggregatedModel(job.number, 0, "cnn", "v0", 1, 0.0, None, None, shares=()))
    for client in (0, 1):
        task = hub.task(client)
        assert isinstance(task, SelectionGrant) and not len(hub.unanswered(client))
        chosen = hub.remaining(client)[: task.count].tolist()
        hub.offer(QueryBatch(client, task.batch, chosen, "random", (task.version,), 0.0))
        again = hub.task(client)
        assert isinstance(again, LocalJob)
        hub.deliver(LocalModel(again.number, client, again.version, 2, 0, f"again-{client}", 0.0))
        task = hub.task(client)
        assert isinstance(task, SelectionGrant) and sorted(hub.unanswered(client)) == sorted(chosen)


def test_every_call_of_the_queries_is_handed_on_to_those_of_a_client() -> None:
    handed_on = {name for name in vars(ClientQueues) if not name.startswith("_")}
    assert handed_on - {"of"} == {name for name in vars(QueryPool) if not name.startswith("_")}
    queues = ClientQueues([5, 5], 0, 2, np.arange(8) % 2)
    queues.offer([0, 2])
    queues.offer([1])
    assert (len(queues), queues.waiting, queues.draws, queues.room) == (3, 3, 6, 7)
    drawn = queues.draw([0, 2, 4, 6], 10.0)
    assert sorted(drawn) == [0, 0, 2, 2] and queues.draw([8], 10.0) == [] and queues.leased == 4
    assert not queues.settle(drawn[0], 1), "an annotator of the other client, who has not drawn it"
    assert not queues.pass_on(drawn[0], 0, 3), "it stays in its client"
    assert queues.pass_on(drawn[0], 0, 8) and queues.settle(drawn[0], 8) and queues.missing(drawn[0]) == 1
    assert queues.renew(drawn[1], 2, 20.0) and queues.first_deadline() == 10.0
    assert len(queues.expire(15.0)) == 2 and queues.leased == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"people": {"supervisors": ["me"]}}, "people.supervisors: people would see the images of every client"),
        ({"annotators": {"gold_share": 0.1}}, "annotators.gold_share: is not for mode federated"),
        ({"annotators": {"aggregation": "dawid_skene"}}, "annotators.aggregation: is not for mode federated"),
        ({"annotators": {"number": 0}}, "annotators.number: 0 label nothing"),
    ],
)
def test_what_reaches_beyond_a_client_is_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make_settings(mode="federated", val_size=0, **more)


def test_staleness_is_counted_in_versions_and_old_files_are_named_once() -> None:
    hub, _ = make_hub(federation(2, 1, 2, {"rounds": 4, "asynchronous": {"buffer": 1}}))
    assert isinstance(hub, FederatedHub)
    slow = hub.task(1)
    assert isinstance(slow, LocalJob) and slow.start is None
    obsolete: list[str] = []
    for version in range(3):
        job = averaged(hub, version)
        obsolete += job.obsolete
    hub.deliver(LocalModel(slow.number, 1, slow.version, 2, None, "slow", 0.0))
    last = hub.job(0)
    assert isinstance(last, AggregationJob)
    assert [(one.model.path, one.staleness, one.start) for one in last.contributions] == [("slow", 3, "")]
    assert last.start is not None and last.start.version == 2
    kept = ["local-0", "clients/kept-0", "local-1", "clients/kept-1"]
    assert [*obsolete, *last.obsolete] == kept, "one more version back than is needed"


def averaged(hub: FederatedHub, version: int) -> AggregationJob:
    """Client 0 trains, or selects first, and a version is made of it."""
    task = hub.task(0)
    if isinstance(task, SelectionGrant):
        hub.offer(QueryBatch(0, task.batch, hub.remaining(0)[: task.count].tolist(), "random", (task.version,), 0.0))
        task = hub.task(0)
    assert isinstance(task, LocalJob)
    start = task.start.version if task.start else None
    hub.deliver(LocalModel(task.number, 0, task.version, 2, start, f"local-{version}", 0.0))
    job = hub.job(0)
    assert isinstance(job, AggregationJob) and all(isinstance(one, Contribution) for one in job.contributions)
    shares = [Share(0, task.number, 0.5, one.staleness) for one in job.contributions]
    hub.publish(AggregatedModel(job.number, 0, "cnn", f"v{version}", 1, 0.0, None, None, shares=shares))
    return job


def test_each_client_owns_a_share_of_the_initial_labels_and_buys_a_share_rounded_up() -> None:
    hub, _ = make_hub(federation(3, 1, 5, {"rounds": 1}), pool=62)
    pools: Any = hub._pools
    sizes = [len(make_partition(federation(3, 1, 5, {"rounds": 1}), 62).owned(client)) for client in range(3)]
    assert sizes == [23, 22, 21] and pools.batches == [math.ceil(size * 15 / 66) for size in sizes]
    assert np.array_equal(hub.labels(0, 9, 0)[0], [6, 9])
