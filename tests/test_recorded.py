"""Recorded answers that are given again, and the experiment that spends them."""

import pathlib

import pytest

from aal.annotators.recorded import Answer, Answers
from aal.app.experiments.people.plans import KINDS, Setup, plan_of
from aal.config.errors import UserError
from aal.engines.simulated.engine import SimulatedEngine
from aal.reporting.progress import Progress
from tests.builders import imagined_plan, query

pytestmark = pytest.mark.unit
SIZES = {"worker_num": 2, "worker_query_num": 2, "query_batch": 10, "server_train_threshold": 20}


def written(path: pathlib.Path, rows: list[str], head: str = "item,annotator,label,seconds") -> str:
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_people_answer_as_they_did_and_each_image_at_most_once(tmp_path: pathlib.Path) -> None:
    rows = []
    for item in range(10, 50):
        people = 0 if item < 13 else 1 if item < 18 else 3
        rows += [f"{item},p{(item + one) % 7},{(item + one) % 10},{1 + one}" for one in range(people)]
    answers = written(tmp_path / "answers.csv", rows)
    who = {"answers": answers, "number": 4, "answers_per_item": 2, "gold_share": 0.0}
    plan = imagined_plan(tmp_path / "run", 40, annotators=who, **SIZES)
    assert plan.settings.annotators.source == "recorded"
    assert SimulatedEngine().run(plan, Progress(None)).exit_code == 0
    given = query(plan.run, "SELECT item, annotator, label FROM answers WHERE kind = 'label' ORDER BY item, arrival")
    recorded = {(int(row.split(",")[0]), int(row.split(",")[1][1:]), int(row.split(",")[2])) for row in rows}
    assert set(given) <= recorded and len(set(given)) == len(given)
    counts = dict(query(plan.run, "SELECT item, count(*) FROM answers WHERE kind = 'label' GROUP BY item"))
    assert set(counts) == set(range(13, 50)), "every image that has an answer"
    assert all(number == (1 if item < 18 else 2) for item, number in counts.items())
    assert query(plan.run, "SELECT item FROM retired ORDER BY item") == [(10,), (11,), (12,)]
    times = query(
        plan.run,
        "SELECT answers.item, round(answered_at - got_at, 6) FROM answers JOIN waits USING (item, annotator)"
        " WHERE kind = 'label' AND answers.item >= 18 GROUP BY arrival",
    )
    assert {seconds for _, seconds in times} <= {1.0, 2.0, 3.0}
    first = set(query(plan.run, "SELECT DISTINCT annotator FROM waits WHERE asked_at IS NOT NULL"))
    assert first == {(7,), (8,), (9,), (10,)}, "those who draw are nobody of the file"


def test_an_answer_that_is_being_given_counts_where_no_other_is_left(tmp_path: pathlib.Path) -> None:
    answers = written(tmp_path / "answers.csv", [f"{item},Ann,{item % 10},5" for item in range(10, 30)])
    who = {"answers": answers, "number": 6, "answers_per_item": 2}
    plan = imagined_plan(tmp_path / "run", 20, annotators=who, **{**SIZES, "query_batch": 5})
    assert SimulatedEngine().run(plan, Progress(None)).exit_code == 0
    assert query(plan.run, "SELECT item FROM labels ORDER BY item") == [(item,) for item in range(10, 30)]
    assert query(plan.run, "SELECT item FROM retired") == []


def test_a_file_is_read_by_path_and_by_name_of_the_class(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "a.csv", ["b.png,Ann,dog", "a.png,Bo,0"], head="path,annotator,label")
    answers = Answers(path, ["cat", "dog"], ["a.png", "b.png"], 2.5, 2)
    assert answers.names == ["Bo", "Ann"] and answers.number == 2
    assert answers.of(1) == [Answer(1, 1, 2.5)] and answers.of(0) == [Answer(0, 0, 2.5)] and not answers.of(2)
    path = written(tmp_path / "a.csv", ["0,b.png,Ann,dog", "1,,Ann,cat"], head="item,path,annotator,label")
    more = Answers(path, ["cat", "dog"], ["a.png", "aa.png", "b.png"], 2.5, 3)
    assert more.of(2) and more.of(1) and not more.of(0), "files were added since: the name says which image it is"


@pytest.mark.parametrize(
    ("head", "row", "text"),
    [
        ("item,label", "1,0", "must have the columns path"),
        ("item,annotator,label", "1,x,bird", "line 2: 'bird' is none of the 2 classes"),
        ("item,annotator,label", "one,x,cat", "line 2: item 'one' is no number of an image"),
        ("item,annotator,label", "2,x,cat", "line 2: item 2 must be from 0 to 1"),
        ("item,annotator,label", "-1,x,cat", "line 2: item -1 must be from 0 to 1"),
        ("item,annotator,label", "1", "line 2: must have the columns path"),
        ("item,path,annotator,label", "0,z.png,x,cat", "line 2: 'z.png' is no file of this image set"),
        ("item,annotator,label,seconds", "1,x,cat,soon", "line 2: seconds 'soon' is no number"),
        ("path,annotator,label", "z.png,x,cat", "line 2: 'z.png' is no file of this image set"),
        ("item,annotator,label,seconds", "1,x,cat,-3", "line 2: seconds -3.0 must be from 0"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: pathlib.Path, head: str, row: str, text: str) -> None:
    path = written(tmp_path / "a.csv", [row], head=head)
    with pytest.raises(UserError, match=text):
        Answers(path, ["cat", "dog"], ["a.png", "b.png"], 1.0, 2)
    with pytest.raises(UserError, match=r"annotators\.answers: .*nothing\.csv: cannot be read"):
        Answers(str(tmp_path / "nothing.csv"), ["cat"], None, 1.0, 2)


def test_every_kind_of_run_spends_about_the_same_money(tmp_path: pathlib.Path) -> None:
    answers = written(tmp_path / "a.csv", ["0,x,0,1"])
    plan = plan_of(Setup(tuple(KINDS), 2, str(tmp_path), answers))
    assert len({run.name for run in plan}) == 2 * len(KINDS)
    for run in plan:
        people = run.settings.annotators
        per_image = 2.27 if people.answers_at_most else people.answers_per_item  # measured, a third where two differ
        assert run.settings.budget * per_image == pytest.approx(3000, rel=0.02)
