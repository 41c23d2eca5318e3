"""How a run ends early: what is said of it, and the way on from there."""

import errno
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable

import pytest

from aal.app import main as program
from aal.app.data import prepare
from aal.config.errors import RunFailed, UserError
from aal.engines.base import Role, RunResult
from aal.engines.local import processes
from aal.engines.local.processes import run_slot
from aal.engines.processes import USER_ERROR, Slot
from aal.export import export
from aal.reporting.comparison import write_comparison
from aal.reporting.pages import write_report
from aal.reporting.progress import Progress
from aal.storage import run_directory
from tests.builders import CONFIG, META, make_run, make_settings, model
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


@pytest.mark.parametrize("moment", ["begun", "new", "resumed"])
def test_ctrl_c_outside_of_the_engine_shows_the_way_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        if moment == "begun":
            patch.setattr(run_directory, "tidy", interrupt)
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


@pytest.mark.parametrize(
    "write",
    [
        write_report,
        lambda run: export(run, "csv"),
        lambda run: write_comparison([run], run.parent / "comparison"),
        lambda run: prepare(make_settings(prepared_dir=str(run.parent / "prepared"))),
    ],
    ids=["report", "export", "comparison", "prepared"],
)
def test_a_disk_that_is_full_is_no_mistake_of_the_user(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[pathlib.Path], object]
) -> None:
    examples = [(1, "initial", None, 4)]
    models = [model(0, 0, 4, 0.0, 1.0, 0.5), model(1, 0, 8, 1.0, 2.0, 0.5)]
    run = make_run(tmp_path / "run", CONFIG, examples=examples, models=models, meta=META.items())
    for number, kind in ((errno.ENOSPC, RunFailed), (errno.EIO, RunFailed), (errno.EROFS, UserError)):

        def fail(source: object, target: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), str(target))

        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, fail)
        with pytest.raises(kind, match=os.strerror(number)):
            write(run)
