"""How a run ends early: what is said of it, and the way on from there."""

import logging
import pathlib
import shutil
import sys

import pytest

from aal.app import main as program
from aal.config.errors import RunFailed
from aal.engines.base import Role, RunResult
from aal.engines.local import processes
from aal.engines.local.processes import USER_ERROR, Slot, run_slot
from aal.reporting.progress import Progress
from tests.builders import make_settings
from tests.test_run_folder import SMALL

pytestmark = pytest.mark.unit
WAY_ON = "to go on: python main.py --resume "


class Failures:
    """The part of a hub that takes failures."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, str]] = []

    def report_failure(self, name: str, text: str) -> None:
        self.reported.append((name, text))


def test_a_role_whose_run_directory_is_gone_ends_for_good_with_a_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "end_with_parent", lambda: None)
    monkeypatch.setattr(logging.getLogger("aal"), "handlers", [])
    run, hub = tmp_path / "moved", Failures()
    with pytest.raises(SystemExit) as ended:
        run_slot(Slot(Role("worker", "no:build", "no:live", 1), 0), 0, run, make_settings(), hub, 0.0)
    assert ended.value.code == USER_ERROR, "no other process is started in vain"
    assert hub.reported == [("worker-0", f"{run / 'log.txt'}: cannot be written: No such file or directory")]
    assert logging.getLogger("aal").handlers, "without any, the traceback goes to the terminal"


@pytest.mark.parametrize("moment", ["new", "resumed"])
def test_ctrl_c_outside_of_the_engine_shows_the_way_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(program, "wire", interrupt)
        assert program.main([*SMALL, "--out", str(run)]) == 130
        if moment == "resumed":
            assert program.main(["--resume", str(run)]) == 130
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == ["interrupted; nothing that was done is lost", f"{WAY_ON}{run}"]
    assert program.main(["--resume", str(run)]) == 0


def test_no_place_is_named_where_the_run_is_no_more(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    program.main([*SMALL, "--out", str(run)])
    shutil.move(run, tmp_path / "elsewhere")
    capsys.readouterr()
    program._conclude(run, RunResult.failed(RunFailed("run.db: was moved")), Progress(sys.stderr))
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "error: run.db: was moved; see log.txt in the run's folder" in text
    assert "to go on: python main.py --resume with the run's folder where it is now" in text
    assert str(run) not in text
