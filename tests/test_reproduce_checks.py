"""The faults that the pages look for are found, and what stands in a run's tables is counted as the pages say."""

import contextlib
import pathlib
import shutil
import sqlite3

import pytest

from aal.app.experiments.aal_2021.checks import check, concluded
from aal.app.experiments.aal_2021.page import Claim
from aal.app.experiments.aal_2021.plans import Setup, plan_of, single
from aal.app.experiments.aal_2021.results import read_results
from aal.app.experiments.aal_2021.statistics import Verdict
from tests.builders import finished_run

pytestmark = pytest.mark.unit
TWO = Setup("tiny", "digits", "data/downloads", 2, ("random", "AAL"), (5000,))
SOUND = [0.5, 0.6, 0.7, 0.8, 0.9]


def change(folder: pathlib.Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as db, db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (0, {"offered": [3]}),  # a test image
        (0, {"offered": [13]}),  # a validation image
        (0, {"offered": [9999]}),  # one of no part
        (1, {"initial": 30}),
        (2, {"accuracies": [0.6, 0.7, 0.7, 0.7, 0.7]}),
        (3, {"accuracies": [0.5, 0.7, 0.7]}),
        (4, {"epoch": 2}),
    ],
)
def test_every_fault_is_found(tmp_path: pathlib.Path, number: int, fault: dict) -> None:
    plan = plan_of("figure2", TWO)
    for run in plan:
        finished_run(run, tmp_path, SOUND)
    assert not any(one.broken for one in check(read_results(plan, tmp_path)))
    finished_run(plan[1], tmp_path, **{"accuracies": SOUND, **fault})
    broken = {place: one.broken for place, one in enumerate(check(read_results(plan, tmp_path))) if one.broken}
    expected = {number} | ({3} if "offered" in fault else set())  # more was bought than was planned, too
    assert broken == {number: [plan[1].name] for number in expected}


def test_only_models_of_the_run_are_looked_at(tmp_path: pathlib.Path) -> None:
    plan = plan_of("figure2", TWO)
    for run in plan:
        finished_run(run, tmp_path / "runs", SOUND)
    wrong = finished_run(plan[0], tmp_path / "elsewhere", SOUND, epoch=2) / "models" / "0.pt"
    shutil.copy(wrong, tmp_path / "runs" / plan[0].name / "models" / "left-over.pt")
    assert not check(read_results(plan, tmp_path / "runs"))[4].broken
    shutil.copy(wrong, tmp_path / "runs" / plan[0].name / "models" / "3.pt")
    assert check(read_results(plan, tmp_path / "runs"))[4].broken == [plan[0].name]


def claims(**verdicts: Verdict) -> list[Claim]:
    return [Claim(text, verdict, "-", "-") for text, verdict in verdicts.items()]


def test_a_conclusion_from_one_seed_is_a_fault(tmp_path: pathlib.Path) -> None:
    plan = plan_of("figure2", TWO)
    for run in plan:
        finished_run(run, tmp_path, SOUND)
    results = read_results(plan, tmp_path)
    three = claims(better=Verdict.HOLDS, worse=Verdict.UNCLEAR, odd=Verdict.FAILS)
    found = concluded(results, three)
    assert (found.broken, found.kept, found.looked_at) == ([], "kept", "3 claims, 2 seeds")
    found = concluded(results[:3], three)  # AAL has one seed
    assert (found.broken, found.looked_at) == (["better", "odd"], "3 claims, 1 seed")
    found = concluded(results[:2], claims(worse=Verdict.UNCLEAR, same=Verdict.UNTRIED))
    assert (found.broken, found.kept) == ([], "one seed: nothing is concluded")


def test_labels_that_a_model_had_not_seen_are_counted_when_a_query_is_drawn(tmp_path: pathlib.Path) -> None:
    run = single(TWO, "AAL", "async", 5000, 0)
    folder = finished_run(run, tmp_path, SOUND)  # query n is drawn at n s and answered half a second later, of 400
    (before,) = read_results([run], tmp_path)
    assert (before.unseen, before.by_initial) == (49.5, 0.25)  # a new model each 100 labels
    change(folder, "update offers set offered_at = 0")
    assert read_results([run], tmp_path)[0].unseen == 49.5
    change(folder, "update offers set version = 0 where item in (select item from labels where arrival >= 200)")
    change(folder, "delete from labels where arrival >= 200")
    (after,) = read_results([run], tmp_path)
    assert (after.unseen, after.by_initial) == (49.5, 0.5)
