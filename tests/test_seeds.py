"""Several seeds of one config: run one after another, resumed as one, compared at the end."""

import pathlib
import shutil
from collections.abc import Mapping

import pytest
import yaml

from aal import load_run
from aal.app import main
from aal.config.errors import UserError
from aal.config.loading import dump, load
from aal.config.settings import Settings
from aal.seeds import MARKER, is_of_seeds, resume_seeds, run_seeds, runs_of, seeds_of
from tests.builders import make_run, model

pytestmark = pytest.mark.unit


class Runner:
    """Stands for main: makes a run directory for each start and ends with the code that is given for its seed."""

    def __init__(self, codes: Mapping[int, int] | None = None) -> None:
        self.codes = dict(codes or {})
        self.calls: list[str] = []
        self.assignments: list[str] = []

    def start(self, settings: Settings, run: pathlib.Path) -> int:
        self.calls.append(f"start {run.name}")
        assert run.name == f"seed-{settings.seed}"
        make_run(run, settings.model_dump(), models=[model(0, 0, 60, 0, 1, 0.5 + settings.seed / 10)])
        return self.codes.get(settings.seed, 0)

    def resume(self, run: pathlib.Path, assignments: list[str]) -> int:
        self.calls.append(f"resume {run.name}")
        self.assignments = assignments
        return 0


@pytest.fixture
def settings() -> Settings:
    return load("digits.yaml", ["engine=simulated"], seed=0)


def test_each_seed_has_a_run_and_all_are_compared(settings: Settings, tmp_path: pathlib.Path) -> None:
    runner, out = Runner(), tmp_path / "out"
    assert run_seeds(settings, [0, 1, 2], str(out), runner.start) == 0
    assert runner.calls == ["start seed-0", "start seed-1", "start seed-2"]
    assert runs_of(out) == [out / f"seed-{seed}" for seed in range(3)]
    assert "| all runs | 3" in " ".join((out / "comparison.md").read_text().split())
    marker = yaml.safe_load((out / MARKER).read_text())
    assert marker["seeds"] == [0, 1, 2]
    assert yaml.safe_dump(marker["settings"], sort_keys=False) == dump(settings)


def test_a_failure_does_not_keep_the_others_from_running(settings: Settings, tmp_path: pathlib.Path) -> None:
    runner = Runner({0: 1})
    assert run_seeds(settings, [0, 1], str(tmp_path / "out"), runner.start) == 1
    assert runner.calls == ["start seed-0", "start seed-1"]


def test_an_interrupted_sequence_goes_on_where_it_stopped(
    settings: Settings, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner, out = Runner({1: 130}), tmp_path / "out"
    assert run_seeds(settings, [0, 1, 2], str(out), runner.start) == 130
    assert f"--resume {out}" in capsys.readouterr().out
    assert runner.calls == ["start seed-0", "start seed-1"]
    assert is_of_seeds(out) and not is_of_seeds(out / "seed-0")
    runner.calls.clear()
    assert resume_seeds(out, ["worker_query_num=12", "prepared_dir=../p"], runner.start, runner.resume) == 0
    assert runner.calls == ["resume seed-0", "resume seed-1", "start seed-2"]
    assert runner.assignments == ["worker_query_num=12", "prepared_dir=../p"]
    # The change holds for runs that start later, and for the next time.
    for found in (out / "seed-2" / "config.yaml", out / MARKER):
        tree = yaml.safe_load(found.read_text())
        changed = tree.get("settings", tree)
        assert changed["worker_query_num"] == 12 and changed["prepared_dir"] == str(tmp_path.parent / "p")


@pytest.mark.process
def test_the_command_takes_several_seeds(tmp_path: pathlib.Path) -> None:
    quick = ["engine=simulated", "worker_query_num=1", "training.epochs=1", "training.validate_after=0"]
    out = tmp_path / "out"
    assert main.main(["--config", "digits.yaml", "--out", str(out), "--seed", "3", "4", *quick]) == 0
    record = (out / "seed-3" / "run.db").read_bytes()
    shutil.rmtree(out / "seed-4")
    assert main.main(["--resume", str(out)]) == 0
    assert (out / "seed-3" / "run.db").read_bytes() == record  # finished runs are kept
    assert [run.name for run in runs_of(out)] == ["seed-3", "seed-4"]
    assert load_run(out / "seed-4").summary["seed"] == 4


def test_mistakes_are_reported(settings: Settings, tmp_path: pathlib.Path) -> None:
    runner, out = Runner(), tmp_path / "out"
    with pytest.raises(UserError, match="given twice"):
        run_seeds(settings, [1, 1], str(out), runner.start)
    with pytest.raises(UserError, match="seed: must be at least 0, not -3"):
        run_seeds(settings, [1, -3], str(out), runner.start)
    with pytest.raises(UserError, match="must be whole numbers, not 1 two"):
        seeds_of(["1", "two"])
    with pytest.raises(UserError, match="not an empty directory"):
        run_seeds(settings, [1, 2], str(tmp_path.parent), runner.start)
    assert run_seeds(settings, [1, 2], str(out), runner.start) == 0
    with pytest.raises(UserError, match="query_batch: cannot be changed"):
        resume_seeds(out, ["query_batch=20"], runner.start, runner.resume)
    (out / MARKER).write_text("seeds: 3\n")
    with pytest.raises(UserError, match="is damaged"):
        resume_seeds(out, [], runner.start, runner.resume)
    assert runner.calls == ["start seed-1", "start seed-2"]
