"""Runs with several answers an image and second thoughts: they end, whatever the order of events and the crashes."""

import contextlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aal.config.errors import Stopped, UserError
from aal.coordination.answers import CANNOT_TELL, Kind
from aal.coordination.messages import TrainingJob
from aal.coordination.query_pool import NO_QUERY
from aal.storage.record_checks import ANSWER_RULES, broken_rule
from aal.storage.resume_state import ResumeState
from tests.builders import MemoryRecorder, make_hub, make_partition, make_settings
from tests.test_hub import NO_SHRINK, Roles, assert_each_in_one_place, live, offer, resumed, train

pytestmark = pytest.mark.unit
POOL = 30
SUPERVISOR = 7


class People(Roles):
    """Roles whose annotators cannot always tell, take answers back, and are corrected."""

    @property
    def said(self) -> dict[tuple[int, int], tuple[Kind, int]]:
        """What was acknowledged: the last word of each annotator for each id."""
        return self.__dict__.setdefault("_said", {})

    def annotator(self, index: int) -> None:
        held = self.held[index]
        chance = self.random.random()
        try:
            if held and chance < 0.6:
                example, label = (
                    held.pop(self.random.randrange(len(held))),
                    self.random.choice([0, 1, 2, 2, CANNOT_TELL]),
                )
                if self.hub.answer([example], [index], [label])[0]:
                    self.answered[example] = index
                    self.said[example, index] = (Kind.LABEL, label)
            elif chance < 0.63:
                for example in self.hub.undo(index, 2):
                    self.said[example, index] = (Kind.UNDO, 0)
                    held.append(example)
            elif chance < 0.65:
                example = self.random.randrange(10, 10 + POOL)
                if self.hub.correct([example], [2], SUPERVISOR)[0]:
                    self.said[example, SUPERVISOR] = (Kind.CORRECTION, 2)
            else:
                held.extend(one for one in self.hub.draw([index], [self.clock.now()], 1) if one != NO_QUERY)
        except Stopped:
            held.clear()

    def read(self, job: TrainingJob) -> None:
        ids, labels = self.hub.labels(0, job.labels)
        assert len(set(ids.tolist())) == len(ids) <= job.labels and ((labels >= 0) & (labels < 3)).all()

    def compare(self, state: ResumeState) -> None:
        last = {(one.example, one.annotator): one for one in state.said}
        for (example, annotator), (kind, label) in self.said.items():
            found = last[example, annotator]
            if kind is Kind.LABEL:
                assert found.kind in (Kind.LABEL, Kind.CANNOT_TELL, Kind.CHECK)
                assert found.label == (None if label == CANNOT_TELL else label)
            else:
                assert found.kind is kind


@settings(max_examples=15, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from([("async", "auto"), ("async", 1), ("async", None), ("sync", 1)]),
    people=st.sampled_from([(1, 1, 1), (2, 2, 1), (2, 3, 1), (3, 3, 1), (1, 1, 2), (2, 2, 2)]),
    gold=st.sampled_from([0.0, 0.2]),
    aggregation=st.sampled_from(["majority", "dawid_skene"]),
    seed=st.integers(0, 2**20),
    crashes=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 30)), max_size=2),
)
def test_every_run_ends_trained_on_the_last_word(
    mode: tuple[str, int | str | None],
    people: tuple[int, int, int],
    gold: float,
    aggregation: str,
    seed: int,
    crashes: list[tuple[int, int]],
) -> None:
    names = ("answers_per_item", "answers_at_most", "cannot_tell")
    who = {**dict(zip(names, people, strict=True)), "number": 3, "gold_share": gold, "aggregation": aggregation}
    lease = {"lease_s": 20.0}
    s = make_settings(mode=mode[0], max_staleness=mode[1], server_num=2, annotators={**who, **lease})
    partition = make_partition(s, POOL)
    roles: Roles = People(*make_hub(s, POOL), s, seed, 0.02)
    said = roles.__dict__.setdefault("_said", {})
    for steps, lost in crashes:
        if live(roles, partition, steps):
            break
        roles = resumed(roles, POOL, lost)
        roles.__dict__["_said"] = said
    assert live(roles, partition, 20_000), f"the run never ends: {roles.hub.status()}"
    assert roles.hub.status().finished
    assert_each_in_one_place(roles.hub, partition)
    record = roles.hub._record
    assert isinstance(record, MemoryRecorder)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        record.journal.left_behind(0, database)
        assert broken_rule(database, ANSWER_RULES) is None
        (changed,) = database.execute("SELECT max(changed_at) FROM labels").fetchone()
        (given,) = database.execute("SELECT max(given_at) FROM jobs").fetchone()
        assert changed is None or given >= changed, "the last training uses the last word"


def test_a_correction_after_the_last_label_starts_one_more_training() -> None:
    hub, _ = make_hub(make_settings(max_staleness=None, query_pool_size=30, annotators={"number": 1}))
    train(hub)
    for worker in (0, 0, 0, 1, 1, 1):
        assert offer(hub, worker)
    example = NO_QUERY
    while hub.status().waiting:
        (example,) = hub.draw([0], [0.0], 1)
        hub.answer([example], [0], [1])
    job = hub.job(0)
    assert isinstance(job, TrainingJob) and job.labels == 34
    assert hub.correct([example], [2], SUPERVISOR) == [True]
    assert hub.labels(0, 34)[1].tolist().count(2) == 1
    (last,) = hub.undo(0)
    assert last != example, "what a supervisor has decided stays"
    assert len(hub.labels(0, 34)[0]) == 33 and hub.answer([last], [0], [1]) == [True]
    hub.release("server", 0)
    assert train(hub) == job
    assert not hub.status().finished
    again = train(hub)
    assert again is not None and again.labels == 34 and hub.status().finished


@pytest.mark.parametrize(
    ("annotators", "text"),
    [
        ({"answers_per_item": 3, "number": 2}, "annotators.number: 2 are too few"),
        ({"answers_per_item": 3, "answers_at_most": 2}, "annotators.answers_at_most: 2 are fewer"),
        ({"cannot_tell": 3, "number": 2}, "annotators.number: 2 are too few"),
        ({"aggregation": "mean"}, "annotators.aggregation: must be dawid_skene, majority or package.module:object"),
    ],
)
def test_answers_that_no_people_could_give_are_refused(annotators: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make_settings(annotators=annotators)
