"""Images that people label for testing and validation, where none is labelled at the start."""

import contextlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aal.coordination.messages import TrainingJob
from aal.coordination.shards import UNLABELLED
from aal.storage.record_checks import RULES, broken_rule
from tests.builders import MemoryRecorder, make_hub, make_partition, make_settings
from tests.test_hub import NO_SHRINK, assert_each_in_one_place, live, resumed
from tests.test_hub_answers import POOL, People

pytestmark = pytest.mark.unit


class Watching(People):
    """People who label some images for testing; nothing is trained on these, and no worker sees them."""

    held_out: frozenset[int] = frozenset()

    def server(self, index: int) -> None:
        before = self.jobs[index]
        super().server(index)
        job = self.jobs.get(index)
        if before is None and job is not None and self.hub._pools.initial == 0 and job.number not in self.given:
            self.given.add(job.number)
            assert len(self.hub.labels(0, job.labels)[0]), "there is something to train on"

    @property
    def given(self) -> set[int]:
        """The numbers of the jobs that were given out, which may come again when what they read is taken back."""
        return self.__dict__.setdefault("_given", set())

    def read(self, job: TrainingJob) -> None:
        super().read(job)
        ids = set(self.hub.labels(0, job.labels)[0].tolist())
        found = self.hub.held_out(job.labels)
        assert not ids & self.held_out
        assert {*found.test.tolist(), *found.validation.tolist()} <= self.held_out
        assert len(found.test) == len(found.test_labels) and (found.validation_labels >= 0).all()

    def worker(self, index: int) -> None:
        assert not self.held_out & set(self.hub.remaining(index).tolist())
        super().worker(index)
        if grant := self.grants.get(index):
            assert not self.held_out & {*grant[0].waiting, *self.hub.labels(0, 10**6)[0].tolist()}


@settings(max_examples=25, deadline=None, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from([("async", "auto", 0), ("async", "auto", 0), ("async", "auto", 4), ("sync", 1, 4)]),
    answers=st.sampled_from([1, 1, 2]),
    threshold=st.integers(1, 12),
    budget=st.integers(2, 10),
    held_out=st.integers(1, 6),
    seed=st.integers(0, 2**20),
    crashes=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 30)), max_size=2),
)
def test_every_run_ends_with_all_of_them_labelled_and_none_trained_on(
    mode: tuple[str, int | str, int],
    answers: int,
    threshold: int,
    budget: int,
    held_out: int,
    seed: int,
    crashes: list[tuple[int, int]],
) -> None:
    people = {"number": 3, "answers_per_item": answers, "lease_s": 20.0}
    initial = {"initial_size": mode[2], "server_train_threshold": threshold}
    s = make_settings(mode=mode[0], max_staleness=mode[1], worker_query_num=budget, annotators=people, **initial)
    partition = make_partition(s, POOL, held_out)
    roles = Watching(*make_hub(s, POOL, held_out=held_out), s, seed, 0.02)
    Watching.held_out = frozenset(partition.held_out.ids.tolist())
    for steps, lost in crashes:
        if live(roles, partition, steps):
            break
        kept = {key: roles.__dict__.get(key) for key in ("_said", "_given")}
        again = resumed(roles, POOL, lost, held_out)
        assert isinstance(again, Watching)
        roles = again
        roles.__dict__.update({key: value for key, value in kept.items() if value is not None})
    assert live(roles, partition, 20_000), f"the run never ends: {roles.hub.status()}"
    assert roles.hub.status().finished
    assert_each_in_one_place(roles.hub, partition)
    assert (roles.hub._pools._state[partition.held_out.ids] != UNLABELLED).all(), "each was offered"
    record = roles.hub._record
    assert isinstance(record, MemoryRecorder)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        record.journal.left_behind(0, database)
        rules = {rule: sql for rule, sql in RULES.items() if "file" not in rule}  # there are none
        assert broken_rule(database, rules, classes=3) is None
        rows = database.execute("SELECT strategy, version FROM offers JOIN examples USING (item) WHERE held_out <> ''")
        assert set(rows) == {("held out", None)}, "no model has chosen one"
        withdrawn = "SELECT count(*) FROM withdrawals JOIN examples USING (item) WHERE held_out <> ''"
        assert database.execute(withdrawn).fetchone() == (0,)
