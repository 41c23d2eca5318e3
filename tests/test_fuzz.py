"""Short parts of what `python -m bench.fuzz` does at length, and that it finds what is wrong."""

import pathlib
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from aal.config.errors import UserError
from bench.fuzz.__main__ import fuzz, main
from bench.fuzz.case import Broken, Case


@pytest.mark.unit
@pytest.mark.parametrize(
    ("subject", "number", "endings"),
    [("settings", 150, {"accepted", "refused"}), ("images", 80, {"opened", "refused"})],
)
def test_what_nobody_would_write_is_taken_or_refused(subject: str, number: int, endings: set[str]) -> None:
    found = fuzz(subject, number, seed=1)
    assert not found["failures"]
    assert endings <= found["endings"].keys() and sum(found["endings"].values()) == number


@pytest.mark.process
@pytest.mark.timeout(300)
def test_damaged_directories_of_runs_are_taken_up_or_refused_by_name() -> None:
    found = fuzz("runs", 4, seed=306)  # all of a run that was killed, so that one run is made; of its log, one is lost
    assert not found["failures"]
    assert sum(found["endings"].values()) == 8, found


def _raise(error: BaseException) -> list[str]:
    raise error


def _hang() -> list[str]:
    time.sleep(60)
    return []


@pytest.mark.unit
@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: _raise(ValueError("a bug")), "ValueError: a bug"),
        (lambda: _raise(SystemExit(3)), "SystemExit: 3"),
        (lambda: _raise(Broken("an answer is gone")), "the case: an answer is gone"),
        (lambda: _raise(UserError("x" * 5000)), "a message of no use"),
        (lambda: _raise(UserError()), "a message of no use"),
        (_hang, "took longer than 0.2 s"),
    ],
    ids=["bug", "exit", "broken", "too long", "empty", "hang"],
)
def test_what_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attempt: Callable[[], list[str]], said: str
) -> None:
    def make(place: pathlib.Path, seed: int, number: int) -> Case:
        return Case("the case", attempt if number == 7 else lambda: ["fine"])

    subject: Any = types.ModuleType("bench.fuzz.images")
    subject.make, subject.SECONDS, subject.NUMBER = make, 0.2, 9
    monkeypatch.setitem(sys.modules, "bench.fuzz.images", subject)
    found = fuzz("images")
    assert (found["failed"], found["endings"]["fine"]) == (1, 8)
    assert "case 7 of seed 0: the case" in found["failures"][0] and said in found["failures"][0]
    assert main(["images"]) == 1 and said in capsys.readouterr().out
    assert main(["images", "--number", "7"]) == 0
    assert main(["images", "--number", "1", "--first", "7"]) == 1


@pytest.mark.unit
def test_an_interrupted_bench_says_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    subject: Any = types.ModuleType("bench.fuzz.images")
    subject.SECONDS, subject.NUMBER = 5.0, 9
    subject.make = lambda place, seed, number: Case(
        "", lambda: _raise(KeyboardInterrupt()) if number == 4 else ["fine"]
    )
    monkeypatch.setitem(sys.modules, "bench.fuzz.images", subject)
    found = fuzz("images")
    assert (found["cases"], found["endings"], found["failures"]) == (4, {"fine": 4}, [])
