"""Runs that their engine refuses, for what it needs is not there."""

import pathlib
from collections.abc import Callable

import pytest

from aal.app import main as program
from aal.config.errors import Refused, RunFailed
from aal.engines.simulated.engine import SimulatedEngine
from tests.test_run_folder import SMALL, resume

pytestmark = pytest.mark.unit


def test_of_a_run_that_its_engine_refuses_nothing_is_left_and_one_that_was_there_stays(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(error: Exception) -> Callable[..., None]:
        def end(*_: object) -> None:
            raise error

        return end

    def started(error: Exception, *words: str) -> int:
        with monkeypatch.context() as changed:
            changed.setattr(SimulatedEngine, "_run", ending(error))
            return program.main([*words])

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    for name in ("run", "link", "run"):
        assert started(Refused("no cluster"), *SMALL, "--out", str(tmp_path / name)) == 2
    assert started(Refused("no cluster"), *SMALL, "--out", str(tmp_path / "run"), "--seed", "0", "1") == 2
    assert not (tmp_path / "run").exists() and not list(elsewhere.iterdir())

    assert started(RunFailed("no memory"), *SMALL, "--out", str(elsewhere)) == 1
    before = {path.name for path in elsewhere.iterdir()}
    settings = (elsewhere / "config.yaml").read_bytes()
    assert started(Refused("no cluster"), "--resume", str(elsewhere), "hung_after_s=77") == 2
    assert (elsewhere / "config.yaml").read_bytes() == settings, "the next one would be refused too"
    assert before <= {path.name for path in elsewhere.iterdir()}
    assert resume(elsewhere) == 0
