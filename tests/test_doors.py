"""The doors of docs/extending.md: the examples there run as a user would run them, from a folder of their own."""

import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
import torch

from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.storage.model_files import load_model

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = [
    *("--config", "digits.yaml", "engine=simulated", "training.epochs=2", "server_num=1", "worker_num=2"),
    *("worker_query_num=2", "query_batch=10", "server_train_threshold=20", "annotators.number=4"),
]
OWN = [
    *("assignment_type=DA", "query_strategy=mystrategies:Disagreement", "query_strategy_options.neighbours=3"),
    *("models=mynets:build", "model_options.hidden=8"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the examples in it, where a user starts the commands."""
    folder = tmp_path_factory.mktemp("mine")
    for example in (ROOT / "docs" / "examples").glob("my*.py"):
        shutil.copy(example, folder)
    return folder


def call(folder: pathlib.Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def run(folder: pathlib.Path, out: str, *words: str) -> pathlib.Path:
    done = call(folder, "main.py", *SMALL, "--out", out, *words)
    assert done.returncode == 0, done.stderr
    return folder / out


def refused(folder: pathlib.Path, script: str, *words: str) -> list[str]:
    done = call(folder, script, *words)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def finished(folder: pathlib.Path) -> pathlib.Path:
    return run(folder, "own", *OWN)


def strategies_of(run: pathlib.Path) -> set[str]:
    with closing(sqlite3.connect(run / "run.db")) as db:
        return {row[0] for row in db.execute("SELECT strategy FROM queries WHERE version IS NOT NULL")}


def newest(run: pathlib.Path) -> pathlib.Path:
    return max((run / "models").glob("*.pt"))


def test_a_strategy_and_a_network_of_ones_own(finished: pathlib.Path) -> None:
    assert strategies_of(finished) == {"mystrategies:Disagreement"}
    assert json.loads((finished / "summary.json").read_text())["labels"]["bought"] == 40
    architecture = load_model(newest(finished))["architecture"]
    assert architecture["name"] == "mynets:build" and architecture["options"] == {"hidden": 8}


def test_the_same_run_twice_is_the_same(folder: pathlib.Path, finished: pathlib.Path) -> None:
    again = run(folder, "again", *OWN)
    first, second = (load_model(newest(one))["state_dict"] for one in (finished, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_eval_needs_to_be_given_the_name_of_a_users_network(folder: pathlib.Path, finished: pathlib.Path) -> None:
    path = str(newest(finished).relative_to(folder))
    (line,) = refused(folder, "eval.py", "--path", path)
    assert line == (
        f"error: {path}: its network mynets:build is a user's own code; to have it imported, add --model mynets:build"
    )
    done = call(folder, "eval.py", "--data_type", "digits", "--path", path, "--model", "mynets:build", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(load_model(folder / path)["test_accuracy"], abs=1e-3)


def test_a_local_run_finds_them_too(folder: pathlib.Path) -> None:
    done = run(folder, "local", *OWN, "engine=local", "max_staleness=null", "annotators.seconds_per_label=0.1")
    assert strategies_of(done) == {"mystrategies:Disagreement"}


@pytest.mark.slow
def test_pretrained_weights_stay_as_they_are_when_frozen(folder: pathlib.Path, finished: pathlib.Path) -> None:
    source = load_model(newest(finished))
    words = [*OWN, f"pretrained={newest(finished)}", "freeze=true"]
    trained = load_model(newest(run(folder, "frozen", *words)))
    changed = [key for key, value in trained["state_dict"].items() if not torch.equal(value, source["state_dict"][key])]
    assert changed == ["9.weight", "9.bias"]
    assert trained["normalisation"] == source["normalisation"]
    assert "starts from" in (folder / "frozen" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["query_strategy_options.neighbours=0"], ["query_strategy_options.neighbours: must be at least 1, not 0"]),
        (
            ["query_strategy_options.depth=2", "worker_num=0"],
            ["worker_num: must be", "query_strategy_options.depth: no such option; there are: neighbours"],
        ),
        (["query_strategy=mystrategies:Nothing"], ["query_strategy: mystrategies:Nothing: mystrategies ("]),
        (["query_strategy=nowhere:X"], ["query_strategy: nowhere:X: there is no module nowhere"]),
        (["model_options.hidden=0"], ["model_options.hidden: must be at least 1, not 0 (of mynets:build)"]),
        (["models=mynets:nothing"], ["models: mynets:nothing: mynets ("]),
        (["pretrained=none.pt"], ["pretrained: none.pt: No such file or directory"]),
    ],
)
def test_mistakes_are_reported_before_anything_starts(folder: pathlib.Path, words: list[str], lines: list[str]) -> None:
    found = refused(folder, "main.py", *SMALL, "--out", "refused", *OWN, *words)
    assert len(found) == len(lines)
    for expected in lines:
        assert any(expected in line for line in found), found
    assert not (folder / "refused").exists()


def test_options_are_for_a_strategy(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    def problems(**changes: Any) -> tuple[str, ...]:
        with pytest.raises(UserError) as caught:
            resolve({"data_type": "digits", "models": "cnn", **changes}, "x")
        return caught.value.problems

    options = {"query_strategy_options": {"a": 1}}
    assert problems(**options) == ("x: query_strategy_options: are for a query_strategy, under assignment_type DA",)
    given = {"assignment_type": "DA", "query_strategy": "margin", **options}
    assert problems(**given) == ("x: query_strategy_options.a: no such option; there are: none",)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (line,) = problems(assignment_type="DA", query_strategy="mynets:build")
    assert line.startswith("x: query_strategy: mynets:build has no method select(pool, count, rng)")
