"""Several answers an image, second thoughts, and known images: thousands of random interleavings, and by example."""

import collections

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aal.aggregation.majority import Majority
from aal.coordination.answers import CANNOT_TELL, Answers, Kind, Said
from aal.coordination.checks import Checks
from aal.coordination.labelled_pool import NO_LABEL, Label
from aal.coordination.pools import Outcome, Pools
from aal.coordination.query_pool import NO_QUERY
from aal.coordination.shards import LABELLED, QUERIED, RETIRED
from tests.builders import make_partition, make_settings

pytestmark = pytest.mark.unit
POOL = 12
PEOPLE = st.integers(0, 4)
SUPERVISOR = 9


class Interleavings(RuleBasedStateMachine):
    """Draws, answers, second thoughts, corrections, deaths and restarts in any order, against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.said: list[Said] = []
        self.rows: dict[int, tuple[int, int | None]] = {}  # as the record has L: place -> id, label
        self.retired: set[int] = set()
        self.drawn: dict[int, set[int]] = collections.defaultdict(set)
        self.final: dict[int, int] = {}

    @initialize(wanted=st.integers(1, 3), more=st.integers(0, 2), cannot_tell=st.integers(1, 2), gold=st.booleans())
    def begin(self, wanted: int, more: int, cannot_tell: int, gold: bool) -> None:
        self.wanted, self.at_most, self.cannot_tell, self.gold = wanted, wanted + more, cannot_tell, gold
        self.pools = self.made()
        self.pools.offer(0, list(range(10, 10 + POOL // 2)))
        self.pools.offer(1, list(range(10 + POOL // 2, 10 + POOL - 2)))

    def made(self) -> Pools:
        partition = make_partition(make_settings(), POOL)
        answers = Answers(Majority(3), self.wanted, self.at_most)
        checks = Checks(0.3, partition.initial, 1) if self.gold else None
        return Pools(partition, np.zeros(10 + POOL, np.int64), 100, 1, answers, self.cannot_tell, checks)

    def note(self, said: list[Said], outcome: Outcome) -> None:
        """Keeps what the record keeps."""
        self.said += said
        for row in outcome.labels:
            assert row.is_new == (row.place not in self.rows)
            self.rows[row.place] = (row.example, None if row.label == NO_LABEL else row.label)
        self.retired -= {one.example for one in said if one.kind in (Kind.UNDO, Kind.CORRECTION)}
        self.retired |= set(outcome.retired)

    def standing(self, example: int) -> dict[int, Said]:
        """The last word of each annotator for an id."""
        words = {one.annotator: one for one in self.said if one.example == example and one.kind is not Kind.CORRECTION}
        return {annotator: one for annotator, one in words.items() if one.kind is not Kind.UNDO}

    # ------------------------------------------------------------------ what happens

    @rule(annotators=st.lists(PEOPLE, min_size=1, max_size=5))
    def draw(self, annotators: list[int]) -> None:
        drawn = self.pools.draw(annotators, self.now + 3)
        for example, annotator in zip(drawn, annotators, strict=False):
            if example != NO_QUERY:
                assert annotator not in self.standing(example), "nobody is shown an image again"
                self.drawn[example].add(annotator)

    @rule(data=st.data(), label=st.sampled_from([0, 0, 1, 2, CANNOT_TELL]))
    def answer(self, data: st.DataObject, label: int) -> None:
        pairs = sorted((example, one) for example, people in self.drawn.items() for one in people)
        if not pairs:
            return
        example, annotator = data.draw(st.sampled_from(pairs))
        before = self.standing(example)
        outcome = self.pools.answer([example], [annotator], [label])
        (kind,) = outcome.kinds
        if kind is not None:
            assert annotator not in before and example not in self.final, "no second answer counts"
            self.note([Said(example, annotator, None if label == CANNOT_TELL else label, kind)], outcome)

    @rule(annotator=PEOPLE)
    def undo(self, annotator: int) -> None:
        outcome = Outcome([], [], [])
        example = self.pools.undo(annotator, self.now + 3, outcome)
        if example is not None:
            own = [one for one in self.said if one.annotator == annotator and one.example not in self.final]
            standing = [one for one in own if self.standing(one.example).get(annotator) is one]
            assert standing[-1].example == example, "the last one"
            self.note([Said(example, annotator, None, Kind.UNDO)], outcome)

    @rule(example=st.integers(10, 9 + POOL), label=st.sampled_from([0, 1, 2, CANNOT_TELL]))
    def correct(self, example: int, label: int) -> None:
        outcome = Outcome([], [], [])
        was_offered = example < 8 + POOL
        assert self.pools.correct(example, label, SUPERVISOR, outcome) == was_offered
        if was_offered:
            self.final[example] = label
            said = Said(example, SUPERVISOR, None if label == CANNOT_TELL else label, Kind.CORRECTION)
            self.note([said], outcome)

    @rule(seconds=st.integers(0, 5))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        self.pools.queries.expire(self.now)

    @rule()
    def die(self) -> None:
        self.pools.queries.release_all()
        assert not self.pools.queries.leased

    @precondition(lambda self: self.said)
    @rule()
    def go_on(self) -> None:
        """The hub is gone, another one goes on from the record."""
        labels = [self.rows[place] for place in sorted(self.rows)]
        done = {example for example, label in labels if label is not None} | self.retired
        unanswered = [(one, 0, frozenset(self.drawn[one])) for one in range(10, 8 + POOL) if one not in done]
        before, self.pools = self.pools, self.made()
        self.pools.restore(labels, unanswered, self.said, self.retired)
        assert np.array_equal(before._state, self.pools._state) and before.offered == self.pools.offered
        assert set(before.answers.columns()[0].tolist()) == set(self.pools.answers.columns()[0].tolist())

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def every_id_is_in_one_place(self) -> None:
        if not hasattr(self, "pools"):
            return
        pools = self.pools
        in_pool = set(pools.queries._versions)
        assert in_pool == set(np.flatnonzero(pools._state == QUERIED).tolist())
        assert {example for example, _ in self.rows.values()} == {
            *(set(np.flatnonzero(pools._state == LABELLED).tolist()) - set(range(6, 10))),
            *pools._places,
        }
        assert set(np.flatnonzero(pools._state == RETIRED).tolist()) <= self.retired
        assert pools.labels == 4 + len(self.rows) and sorted(self.rows) == list(range(len(self.rows)))

    @invariant()
    def those_wait_that_may_be_drawn(self) -> None:
        if not hasattr(self, "pools"):
            return
        queries = self.pools.queries
        free = {example: queries._free(example) for example in queries._versions}
        assert sorted(queries._waiting) == sorted(example for example, number in free.items() if number > 0)
        assert queries.draws == sum(max(0, number) for number in free.values())
        for example in queries.leases.ids:
            assert not set(self.standing(example)) & set(queries.leases.holders(example))

    @invariant()
    def labels_are_what_people_said_last(self) -> None:
        for example, label in self.rows.values():
            if example in self.final:
                assert label == (None if self.final[example] == CANNOT_TELL else self.final[example])
                continue
            votes = [one.label for one in self.standing(example).values() if one.kind is Kind.LABEL]
            if label is not None:
                assert label == max(votes, key=votes.count)
                assert len(votes) <= self.at_most
                could_not = len(self.standing(example)) - len(votes)
                assert len(votes) >= self.wanted or could_not >= 1


Interleavings.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestInterleavings = Interleavings.TestCase


def pools_with(wanted: int = 1, at_most: int = 1, cannot_tell: int = 1) -> Pools:
    """Two ids, 10 and 11, in S."""
    partition = make_partition(make_settings(), 10)
    answers = Answers(Majority(3), wanted, at_most)
    pools = Pools(partition, np.zeros(20, np.int64), 100, 0, answers, cannot_tell)
    pools.offer(0, [10, 11])
    return pools


def say(pools: Pools, example: int, annotator: int, label: int) -> list[Label]:
    """Lets an annotator draw until it is this id, and answer."""
    while annotator not in pools.queries.leases.holders(example):
        (other,) = pools.draw([annotator], 1.0)
        if other != example:
            pools.queries.give_back(other, annotator)
    outcome = pools.answer([example], [annotator], [label])
    assert outcome.kinds != [None]
    return outcome.labels


def test_the_same_image_goes_to_different_people_at_once_and_never_twice_to_one() -> None:
    pools = pools_with(wanted=2)
    assert pools.queries.waiting == 2 and pools.queries.draws == 4
    assert sorted(pools.draw([0, 0, 0], 1.0)) == [10, 11], "of the third there is none for annotator 0"
    assert sorted(pools.draw([1, 1], 1.0)) == [10, 11] and not pools.queries.waiting
    assert not say(pools, 10, 0, 1) and pools.labels == 4
    assert say(pools, 10, 1, 1) == [Label(0, 10, 1, 1.0, 1, True)]
    assert pools.labels == 5 and pools.offered == 2, "budgets count images"


def test_a_third_is_asked_where_two_disagree() -> None:
    pools = pools_with(wanted=2, at_most=3)
    assert say(pools, 10, 0, 1) + say(pools, 10, 1, 2) == []
    assert pools.queries.missing(10) == 1
    assert say(pools, 10, 2, 2) == [Label(0, 10, 2, 2 / 3, 2, True)]
    assert say(pools, 11, 0, 0) + say(pools, 11, 1, 0) == [Label(1, 11, 0, 1.0, 1, True)], "they agree"


def test_what_nobody_can_tell_is_shown_to_so_many_and_gets_no_label() -> None:
    pools = pools_with(cannot_tell=2)
    assert say(pools, 10, 0, CANNOT_TELL) == [] and pools._state[10] == QUERIED
    assert 10 not in pools.draw([0, 0], 1.0), "never again to who could not tell"
    assert say(pools, 10, 1, CANNOT_TELL) == [] and pools._state[10] == RETIRED
    assert pools.offered == 1, "its place in the budget is free"


def test_answers_decide_that_are_there_when_the_next_cannot_tell() -> None:
    pools = pools_with(wanted=2)
    say(pools, 10, 0, 2)
    assert say(pools, 10, 1, CANNOT_TELL) == [Label(0, 10, 2, 1.0, 1, True)]


def test_who_holds_an_image_may_still_answer_when_another_cannot_tell() -> None:
    pools = pools_with(wanted=2)
    assert sorted(pools.draw([0, 0], 1.0)) == sorted(pools.draw([1, 1], 1.0)) == [10, 11]
    assert say(pools, 10, 1, CANNOT_TELL) == [] and pools._state[10] == QUERIED
    assert pools.draw([2, 2], 1.0) == [], "nobody else is asked"
    assert say(pools, 10, 0, 2) == [Label(0, 10, 2, 1.0, 0, True)]
    assert say(pools, 11, 0, CANNOT_TELL) == [] and say(pools, 11, 1, CANNOT_TELL) == []
    assert pools._state[11] == RETIRED and pools.idle, "the other could not tell either"


def test_an_image_waits_again_when_the_time_of_the_last_who_might_answer_is_over() -> None:
    pools = pools_with(wanted=3)
    pools.correct(11, CANNOT_TELL, SUPERVISOR, Outcome([], [], []))
    assert pools.draw([0, 1], 1.0) == [10, 10]
    assert say(pools, 10, 1, CANNOT_TELL) == [] and pools.queries.expire(2.0) == [10]
    assert pools.draw([2, 3], 3.0) == [10], "one is asked in the place of the one who was to answer"
    assert say(pools, 10, 2, 1) == [Label(0, 10, 1, 1.0, 2, True)]


def test_a_label_that_is_taken_back_keeps_its_place_and_the_last_word_counts() -> None:
    pools = pools_with()
    say(pools, 10, 0, 1)
    say(pools, 11, 1, 2)
    outcome = Outcome([], [], [])
    assert pools.undo(0, 5.0, outcome) == 10 and outcome.labels == [Label(0, 10, NO_LABEL, 0.0, 0, False)]
    assert pools.labelled.between(4, 9)[0].tolist() == [11] and pools.labels == 6 and not pools.idle
    assert pools.offered == 2 and pools.revision == 1
    assert say(pools, 10, 0, 0) == [Label(0, 10, 0, 1.0, 0, False)]
    assert pools.labelled.between(4, 9)[1].tolist() == [0, 2] and pools.revision == 2
    assert pools.correct(11, 1, SUPERVISOR, outcome) and not pools.undo(1, 5.0, outcome), "a supervisor's is the last"
    assert pools.labelled.between(4, 9)[1].tolist() == [0, 1]
    assert not pools.correct(6, 1, SUPERVISOR, outcome), "an initial label"


def test_known_images_are_mixed_in_and_never_count() -> None:
    partition = make_partition(make_settings(), 10)
    checks = Checks(0.9, partition.initial, 3)
    pools = Pools(partition, np.zeros(20, np.int64), 100, 0, Answers(Majority(3)), checks=checks)
    assert pools.draw([0] * 5, 1.0) == [], "not where there is nothing to label"
    pools.offer(0, [10, 11, 12, 13, 14])
    shown = pools.draw([0] * 5, 1.0)
    known = [example for example in shown if example < 10]
    assert known and len(set(known)) == len(known)
    outcome = pools.answer(shown, [0] * 5, [1] * 5)
    assert outcome.kinds == [Kind.CHECK if example < 10 else Kind.LABEL for example in shown]
    assert pools.labels == 4 + 5 - len(known)
    assert pools.answer(known, [0] * len(known), [1] * len(known)).kinds == [None] * len(known)
