"""The two pools, by example and by thousands of random interleavings."""

import collections

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aal.coordination import pools
from aal.coordination.pools import LabeledPool, QueryPool

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


def test_an_answer_counts_once_and_only_from_those_who_drew() -> None:
    pool = QueryPool(5, 0)
    pool.offer([1])
    assert not pool.settle(1, annotator=0)  # never drawn
    pool.draw([0], deadline=10.0)
    assert not pool.settle(1, annotator=1)
    assert pool.settle(1, annotator=0)
    assert not pool.settle(1, annotator=0)


def test_a_late_answer_is_paid_work_and_counts_until_another_answers() -> None:
    pool = QueryPool(5, 0)
    pool.offer([1])
    pool.draw([0], deadline=10.0)
    assert pool.expire(9.9) == []
    assert pool.expire(10.0) == [1]
    pool.draw([1], deadline=20.0)
    assert pool.settle(1, annotator=0)  # the first one to answer
    assert not pool.settle(1, annotator=1)
    pool.offer([2])
    pool.draw([0], deadline=30.0)
    pool.expire(30.0)
    assert pool.settle(2, annotator=0)  # back in S, not leased again
    assert pool.waiting == pool.leased == 0


def test_returned_leases_may_exceed_the_bound_since_nothing_is_dropped() -> None:
    pool = QueryPool(2, 0)
    pool.offer([1, 2])
    pool.draw([0], 5.0)
    pool.offer([3])
    assert pool.room == 0
    pool.release_all()
    assert sorted(pool.waiting_items()) == [1, 2, 3] and pool.room == 0


def test_a_label_is_never_given_twice() -> None:
    pool = LabeledPool(9, [4], [0])
    pool.add([5, 6], [1, 0])
    for again in ([7, 5], [8, 8]):
        with pytest.raises(ValueError, match="labelled already"):
            pool.add(again, [2, 2])
    with pytest.raises(ValueError, match="1 labels for 2 items"):
        pool.add([7, 8], [2])
    items, labels = pool.between(0, 10)
    assert items.tolist() == [4, 5, 6] and labels.tolist() == [0, 1, 0] and 7 not in pool


def test_many_draw_at_once_as_they_would_one_by_one() -> None:
    together, singly = QueryPool(10, 7), QueryPool(10, 7)
    for pool in (together, singly):
        pool.offer(range(10))
    items = together.draw(range(12), 1.0)
    assert items == [singly.draw([annotator], 1.0)[0] for annotator in range(10)]
    assert sorted(items) == list(range(10)) and singly.draw([10], 1.0) == []
    assert [together.settle(item, annotator) for annotator, item in enumerate(items)] == [True] * 10


def test_deadlines_of_answered_queries_are_forgotten() -> None:
    pool = QueryPool(10, 0)
    pool.offer([-1])
    pool.draw([0], deadline=1e5)
    for item in range(3 * pools.FORGET):
        pool.offer([item])
        pool.draw([0], deadline=1e6 + item)
        pool.settle(item, 0)
    assert len(pool._deadlines) < 1.1 * pools.FORGET
    pool.offer([-2])
    pool.draw([0], deadline=5.0)
    assert pool.expire(5.0) == [-2] and pool.expire(1e5) == [-1]


class Interleavings(RuleBasedStateMachine):
    """Offers, draws, answers, expiries and deaths in any order, against a plain model of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = QueryPool(8, 1)
        self.labeled = LabeledPool(1000)
        self.next_item = 0
        self.now = 0
        self.ends: dict[int, float] = {}
        self.drawn: dict[int, set[int]] = collections.defaultdict(set)
        self.forget, pools.FORGET = pools.FORGET, 4

    def teardown(self) -> None:
        pools.FORGET = self.forget

    @precondition(lambda self: self.pool.room)
    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.pool.room))
        self.pool.offer(range(self.next_item, self.next_item + count))
        self.next_item += count

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
        may = item not in self.labeled and annotator in self.drawn[item]
        settled = self.pool.settle(item, annotator)
        assert settled == may
        if settled:
            self.labeled.add([item], [0])

    @rule(seconds=st.integers(0, 5))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        due = {item for item in self.pool.leased_items() if self.ends[item] <= self.now}
        expired = self.pool.expire(self.now)
        assert len(expired) == len(due) and set(expired) == due <= set(self.pool.waiting_items())

    @rule()
    def die(self) -> None:
        held = self.pool.leased_items()
        assert self.pool.release_all() == held and not self.pool.leased

    @invariant()
    def every_item_is_in_exactly_one_place(self) -> None:
        labelled = self.labeled.between(0, len(self.labeled))[0].tolist()
        assert sorted(self.pool.waiting_items() + self.pool.leased_items() + labelled) == list(range(self.next_item))


Interleavings.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestInterleavings = Interleavings.TestCase
