"""Images that people label for testing and validation, where none is labelled at the start."""

import contextlib
import dataclasses
import io
import pathlib
import re
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from aal.app import data
from aal.app.data.arrays import ImageSet
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.interval import interval, interval_of_few
from aal.coordination.messages import Pending, TrainingJob
from aal.coordination.partition import Partition
from aal.coordination.shards import UNLABELLED
from aal.reporting import confusions, labelling_plots, pages
from aal.reporting.metrics import summary_of
from aal.reporting.progress import Progress
from aal.reporting.record import read
from aal.storage.record_checks import RULES, broken_rule
from aal.storage.run_recorder import RunRecorder
from aal.storage.schema import create_tables
from aal.web.figures import NOTHING, _accuracy
from tests.builders import MemoryRecorder, make_hub, make_partition, make_run, make_settings, model
from tests.test_hub import NO_SHRINK, assert_each_in_one_place, live, resumed
from tests.test_hub_answers import POOL, People
from tests.test_progress import NEXT

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
        if self.grants.get(index):
            unanswered = self.hub.unanswered(index).tolist()
            assert not self.held_out & {*unanswered, *self.hub.labels(0, 10**6)[0].tolist()}


@settings(max_examples=15, phases=NO_SHRINK, suppress_health_check=[HealthCheck.too_slow])
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


def unlabelled(number: int, labelled: int = 0) -> ImageSet:
    """Noise, of which the first images have a label."""
    images = np.random.RandomState(0).randint(0, 256, (number, 8, 8, 1)).astype(np.uint8)
    labels = np.where(np.arange(number) < labelled, np.arange(number) % 2, -1)
    return ImageSet(pathlib.Path("noise"), "folder", images, labels, ("a", "b"))


def labelled_by_people(held_out: int = 200, **changes: Any) -> Settings:
    people = {"people": {"supervisors": ["eve"], "held_out": held_out}, "annotators": {"number": 0}}
    tree = {"data_type": "folder", "data_dir": ".", "classes": ["a", "b"], "models": "cnn", "max_staleness": "auto"}
    sizes = {"initial_size": 0, "val_size": 0, "worker_num": 3, "worker_query_num": 1000, "query_batch": 20}
    return resolve({**tree, **people, **sizes, "server_train_threshold": 20, **changes}, "test")


@pytest.mark.parametrize(
    ("images", "changes", "number"),
    [
        (2000, {}, 200),
        (600, {}, 120),
        (4, {}, 0),
        (600, {"held_out": 31}, 31),
        (600, {"held_out": 0}, 0),
        (600, {"worker_query_num": 1}, 12),
        (600, {"people": {}, "annotators": {"number": 3}}, 0),
    ],
)
def test_a_share_of_what_people_label_is_held_out(images: int, changes: dict[str, Any], number: int) -> None:
    s = labelled_by_people(**changes)
    parts = data.split(unlabelled(images), s, 3)
    test, validation = parts.held_out
    assert (len(test), len(validation)) == (number - number // 2, number // 2)
    assert (
        len(np.unique(parts.held_out.ids)) == number and np.isin(parts.held_out.ids, np.concatenate(parts.shards)).all()
    )
    assert sum(map(len, parts.shards)) == images == number + len(parts.trainable) == number + parts.sizes.trainable
    again = data.split(unlabelled(images), s, 2)
    other = data.split(unlabelled(images), s.model_copy(update={"seed": 1}), 3)
    assert (again.held_out.test == test).all(), "the same with other shards"
    assert number == 0 or not np.array_equal(other.held_out.ids, parts.held_out.ids)


def test_where_images_are_labelled_there_is_a_test_set_already() -> None:
    parts = data.split(unlabelled(600, labelled=20), labelled_by_people(initial_size=10), 3)
    assert len(parts.test) == 4 and not len(parts.held_out.ids)


def test_what_is_held_out_stays_so_in_a_resumed_run_whatever_its_settings_say(tmp_path: pathlib.Path) -> None:
    images, s = unlabelled(600), labelled_by_people()
    parts = data.split(images, s, 3)
    record = RunRecorder(tmp_path / "run.db")
    record.begin(parts.rows(images.labels), {})
    record.close("finished", 0.0)

    def held_out(found: Partition) -> list[list[int]]:
        return [ids.tolist() for ids in found.held_out]

    other = labelled_by_people(held_out=10)
    for _ in range(2):  # made again from the seed and the record; read from the file
        assert held_out(data.split_again(tmp_path, images, other, 3, has_begun=True)) == held_out(parts)
    assert held_out(data.load_split(tmp_path / "split.npz")) == held_out(parts)


def test_nothing_is_trained_on_before_there_is_a_label_for_it() -> None:
    s = make_settings(max_staleness="auto", initial_size=0, server_train_threshold=1, worker_query_num=9)
    hub, _ = make_hub(s, POOL, held_out=6)
    aside = set(make_partition(s, POOL, 6).held_out.ids.tolist())
    drawn: list[int] = []
    while len(drawn) < 8:  # two of them are held out
        drawn += hub.draw([0], [0.0], 1)
    others = [example for example in drawn if example not in aside]
    assert len(others) in (5, 6)
    for example in sorted(set(drawn) & aside):
        assert hub.answer([example], [0], [1]) == [True]
    assert isinstance(hub.job(0), Pending)
    assert hub.answer(others[:1], [0], [1]) == [True] and hub.undo(0) == others[:1]
    assert isinstance(hub.job(0), Pending), "the only label was taken back"
    hub.answer(others[:1], [0], [2])
    job = hub.job(0)
    assert isinstance(job, TrainingJob) and job.labels == 3
    assert [column.tolist() for column in hub.labels(0, 3)] == [others[:1], [2]]
    assert len(hub.held_out(3).test) + len(hub.held_out(3).validation) == 2


@given(images=st.integers(1, 3000), data_=st.data())
def test_the_interval_is_that_of_scipy(images: int, data_: st.DataObject) -> None:
    right = data_.draw(st.integers(0, images))
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert interval(right / images, images) == pytest.approx(tuple(expected), abs=1e-6)
    assert (interval_of_few(right / images, images) is None) == (images >= 1000)


def test_an_accuracy_of_few_images_is_shown_with_its_interval() -> None:
    stream = io.StringIO()
    for images in (50, 1000, 0):
        Progress(stream, line_every_s=0.0).show(dataclasses.replace(NEXT, test_accuracy=0.9, test_images=images))
    shown = [line.split("model v4 ")[1].split(", 12 ")[0] for line in stream.getvalue().splitlines()]
    assert shown == ["test 0.900 [0.79, 0.96]", "test 0.900", "test 0.900"]
    row = {"version": 4, "test_accuracy": 0.9, "val_accuracy": 0.8, "test_images": 50}
    found = _accuracy(dataclasses.replace(NOTHING, curve=[row]))
    assert found is not None and found["images"] == 50 and found["interval"] == interval(0.9, 50)
    validated = _accuracy(dataclasses.replace(NOTHING, curve=[{**row, "test_accuracy": None, "test_images": 0}]))
    assert validated is not None and (validated["of"], validated["interval"]) == ("val", None)


def test_the_report_says_who_labelled_the_test_set_and_what_people_confuse(tmp_path: pathlib.Path) -> None:
    run = make_run(
        tmp_path / "run",
        examples=[(i, "shard", 0, -1, None, {0: "test", 1: "test", 2: "validation"}.get(i)) for i in range(8)],
        models=[model(0, 0, 3, 5.0, 6.0, 0.5)],
        offers=[(i, 0, "held out" if i < 3 else "margin", None if i < 3 else 0, None, 0.0) for i in range(6)],
        answers=[(n, n % 3, n // 3, (1, 2, 2, 1, 2, 0)[n], 1.0 + n, "label") for n in range(6)],
        labels=[(0, 0, 1, 1.0, 1, 4.0), (1, 1, 2, 1.0, 1, 5.0), (2, 2, 2, 0.5, 1, 6.0)],
        confusion=[(0, 1, 1, 1), (0, 2, 1, 1)],
        meta=[("classes", '["cat", "dog", "emu"]')],
    )
    record = read(run)
    summary, pairs = summary_of(record), confusions.confusions(record)
    page = re.sub(" +", " ", pages._page("run", record, summary, ["annotators_confusion"]))
    assert "3 images were set aside at random, 2 of them for testing, and labelled by people" in page
    assert "annotators_confusion.png" in page and "50.0 % [9.5, 90.5] of 2 test images" in page
    lines = confusions.confusion_file(pairs, record.classes).decode().splitlines()
    assert lines[0] == "annotator,label,answer,images"
    assert lines[1:] == ["0,dog,dog,1", "0,emu,emu,2", "1,dog,dog,1", "1,emu,cat,1", "1,emu,emu,1"]
    drawn = labelling_plots.confusions(confusions.most_active(pairs, 3), record.classes)
    assert [axes.get_title() for axes in drawn.axes] == ["Annotator 0, 3 answers", "Annotator 1, 3 answers"]
    assert summary["queries"]["held_out"] == 3 and summary["queries"]["random"] == 0


def test_a_record_of_an_earlier_version_holds_nothing_out(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path / "run", examples=[(0, "initial", None, 1)], models=[model(0, 0, 1, 0.0, 1.0, 0.5)])
    with contextlib.closing(sqlite3.connect(run / "run.db")) as db:
        db.execute("ALTER TABLE examples DROP COLUMN held_out")
        db.commit()
        assert read(run).held_out == {} and summary_of(read(run))["labels"]["initial"] == 1
        create_tables(db)
        assert db.execute("SELECT item, held_out FROM examples").fetchall() == [(0, None)]
