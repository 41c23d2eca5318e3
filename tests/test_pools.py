"""The two pools, by example and by thousands of random interleavings."""

import collections

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aal.aggregation.majority import Majority
from aal.coordination import leases
from aal.coordination.answers import Answers, Kind
from aal.coordination.pools import Pools
from aal.coordination.query_pool import QueryPool
from tests.builders import make_partition, make_settings

pytestmark = pytest.mark.unit


def test_a_draw_is_uniform_and_seeded() -> None:
    counts: collections.Counter[int] = collections.Counter()
    for seed in range(3000):
        pool = QueryPool(10, seed)
        pool.offer(range(10))
        counts.update(pool.draw([0], 1.0))
    assert set(counts) == set(range(10))
    assert max(abs(count - 300) for count in counts.values()) < 90  # five deviations
    first, second = QueryPool(10, 7), QueryPool(10, 7)
    for pool in (first, second):
        pool.offer(range(10))
    assert [first.draw([0], 1.0) for _ in range(10)] == [second.draw([0], 1.0) for _ in range(10)]


def settle(pool: QueryPool, example: int, annotator: int) -> bool:
    """Answers an id, which leaves the pool with its last answer."""
    if not pool.settle(example, annotator):
        return False
    if not pool.missing(example):
        pool.finish(example)
    return True


def test_an_answer_counts_once_and_only_from_those_who_drew() -> None:
    pool = QueryPool(5, 0)
    pool.offer([1])
    assert not settle(pool, 1, annotator=0)  # never drawn
    pool.draw([0], deadline=10.0)
    assert not settle(pool, 1, annotator=1)
    assert settle(pool, 1, annotator=0)
    assert not settle(pool, 1, annotator=0)


def test_a_late_answer_is_paid_work_and_counts_until_another_answers() -> None:
    pool = QueryPool(5, 0)
    pool.offer([1])
    pool.draw([0], deadline=10.0)
    assert pool.expire(9.9) == []
    assert pool.expire(10.0) == [1]
    pool.draw([1], deadline=20.0)
    assert settle(pool, 1, annotator=0)  # the first one to answer
    assert not settle(pool, 1, annotator=1)
    pool.offer([2])
    pool.draw([0], deadline=30.0)
    pool.expire(30.0)
    assert settle(pool, 2, annotator=0)  # back in S, not leased again
    assert pool.waiting == pool.leased == 0


def test_returned_leases_may_exceed_the_bound_since_nothing_is_dropped() -> None:
    pool = QueryPool(2, 0)
    pool.offer([1, 2])
    pool.draw([0], 5.0)
    pool.offer([3])
    assert pool.room == 0
    pool.release_all()
    assert sorted(pool._waiting) == [1, 2, 3] and pool.room == 0


def test_an_example_goes_from_its_shard_to_s_to_l_and_never_twice() -> None:
    partition = make_partition(make_settings(), 10)
    place = Pools(partition, np.arange(20) % 3, 5, 0, Answers(Majority(3)))
    assert place.labelled.between(0, 9)[1].tolist() == [0, 1, 2, 0], "the initial ids with their true labels"
    place.offer(0, [10, 11])
    for again in ([11], [12, 12], [15], [6], [0]):
        with pytest.raises(ValueError, match="worker 0"):
            place.offer(0, again)
    assert place.remaining(0).tolist() == [12, 13, 14] and place.left(0) == 3
    ids = place.queries.draw([0, 1], 1.0)
    outcome = place.answer([*ids, ids[0]], [0, 1, 0], [1, 2, 1])
    assert outcome.kinds == [Kind.LABEL, Kind.LABEL, None] and [one.example for one in outcome.labels] == ids
    assert place.labels == 6 and place.idle
    assert place.labelled.between(4, 99)[0].tolist() == ids and place.labelled.between(4, 99)[1].tolist() == [1, 2]
    with pytest.raises(ValueError, match="worker 0"):
        place.offer(0, [10])


def test_many_draw_at_once_as_they_would_one_by_one() -> None:
    together, singly = QueryPool(10, 7), QueryPool(10, 7)
    for pool in (together, singly):
        pool.offer(range(10))
    items = together.draw(range(12), 1.0)
    assert items == [singly.draw([annotator], 1.0)[0] for annotator in range(10)]
    assert sorted(items) == list(range(10)) and singly.draw([10], 1.0) == []
    assert [settle(together, item, annotator) for annotator, item in enumerate(items)] == [True] * 10


def test_deadlines_of_answered_queries_are_forgotten() -> None:
    pool = QueryPool(10, 0)
    pool.offer([10**6])
    pool.draw([0], deadline=1e5)
    for item in range(3 * leases.STALE_DEADLINES):
        pool.offer([item])
        pool.draw([0], deadline=1e6 + item)
        settle(pool, item, 0)
    assert len(pool.leases._deadlines) < 1.1 * leases.STALE_DEADLINES
    pool.offer([10**6 + 1])
    pool.draw([0], deadline=5.0)
    assert pool.expire(5.0) == [10**6 + 1] and pool.expire(1e5) == [10**6]


class Interleavings(RuleBasedStateMachine):
    """Offers, withdrawals, draws, answers, expiries and deaths in any order, against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = QueryPool(8, 1)
        self.labelled_ids: set[int] = set()
        self.withdrawn: set[int] = set()
        self.versions: dict[int, int] = {}
        self.next_item = 0
        self.now = 0
        self.ends: dict[int, float] = {}
        self.drawn: dict[int, set[int]] = collections.defaultdict(set)
        self.forget, leases.STALE_DEADLINES = leases.STALE_DEADLINES, 4

    def teardown(self) -> None:
        leases.STALE_DEADLINES = self.forget

    @precondition(lambda self: self.pool.room)
    @rule(data=st.data(), version=st.integers(-1, 3))
    def offer(self, data: st.DataObject, version: int) -> None:
        count = data.draw(st.integers(1, self.pool.room))
        ids = range(self.next_item, self.next_item + count)
        self.pool.offer(ids, version)
        self.versions |= dict.fromkeys(ids, version)
        self.next_item += count

    @rule(version=st.integers(-1, 4), count=st.integers(0, 6))
    def withdraw(self, version: int, count: int) -> None:
        may = [one for one in self.pool._waiting if self.versions[one] < version and not self.drawn[one]]
        assert self.pool.older(version) == len(may)
        gone = self.pool.withdraw(version, count)
        assert len(gone) == min(count, len(may)) and set(gone) <= set(may)
        kept = set(may) - set(gone)
        assert all(self.versions[one] <= self.versions[other] for one in gone for other in kept), "the oldest go first"
        self.withdrawn |= set(gone)

    @precondition(lambda self: self.pool.waiting)
    @rule(annotators=st.lists(st.integers(0, 3), min_size=1, max_size=6), lease=st.integers(1, 4))
    def draw(self, annotators: list[int], lease: int) -> None:
        waiting = self.pool.waiting
        items = self.pool.draw(annotators, self.now + lease)
        assert len(items) == min(waiting, len(annotators))
        for item, annotator in zip(items, annotators, strict=False):
            self.drawn[item].add(annotator)
            self.ends[item] = self.now + lease
        deadline = self.pool.first_deadline()
        assert deadline is not None and deadline <= self.now + lease

    @precondition(lambda self: self.next_item)
    @rule(data=st.data(), annotator=st.integers(0, 3))
    def answer(self, data: st.DataObject, annotator: int) -> None:
        item = data.draw(st.integers(0, self.next_item - 1))
        may = item not in self.labelled_ids | self.withdrawn and annotator in self.drawn[item]
        settled = settle(self.pool, item, annotator)
        assert settled == may
        if settled:
            self.labelled_ids.add(item)

    @rule(seconds=st.integers(0, 5))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        due = {item for item in self.pool.leases.ids if self.ends[item] <= self.now}
        expired = self.pool.expire(self.now)
        assert len(expired) == len(due) and set(expired) == due <= set(self.pool._waiting)

    @rule()
    def die(self) -> None:
        held = self.pool.leases.ids
        assert self.pool.release_all() == held and not self.pool.leased

    @invariant()
    def every_item_is_in_exactly_one_place(self) -> None:
        everywhere = [*self.pool._waiting, *self.pool.leases.ids, *self.labelled_ids, *self.withdrawn]
        assert sorted(everywhere) == list(range(self.next_item))


Interleavings.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestInterleavings = Interleavings.TestCase
