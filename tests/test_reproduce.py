"""The command: mistakes in its words, sweeps that are stopped, continued and fail, and one figure for real."""

import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest
import torch

from aal import sweep
from aal.app import reproduce
from aal.app.experiments.aal_2021.plans import Run, Setup, plan_of
from aal.config.errors import RunFailed
from bench.run_process import survivors
from tests.builders import finished_run, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent
SETUP = Setup("tiny", "digits", "data/downloads", 2, ("random", "AAL"), (5000,))
WORDS = ["figure2", "--scale", "tiny", "--methods", "AAL", "random", "--batches", "5000", "--seeds", "2"]
# Stands for main.py: prints its arguments, then does as the test wants.
PATIENT = "import sys, time; print(sys.argv[1:], flush=True); time.sleep(600)"
FAILING = """
import sys, time
if "AAL-async-batch5000-seed0" in str(sys.argv):
    print("error: the disk is full")
    sys.exit({code})
time.sleep(600)
"""


@pytest.fixture
def left_behind() -> Callable[[], set[psutil.Process]]:
    """The processes that this one has started, less those from before the test, such as another's fork server."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: set(psutil.Process().children(recursive=True)) - before


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    out = tmp_path / "out"
    with sweep.claimed_folder(out):
        pass
    return out


def run_two_at_a_time(out: pathlib.Path, plan: list[Run]) -> str:
    return sweep.run_all("figure2", out, plan, sweep.environments_of(2, 0, os.environ))


@pytest.mark.unit
def test_all_mistakes_are_reported_at_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["figure2", "--data_type", "digits", "--seeds", "0", "--jobs", "0", "--methods", "badge", "--batches", "7"]
    assert reproduce.main([*words, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --data_type digits: at scale cpu it is one of cifar-10, cifar-100, mini-imagenet",
        "error: --seeds 0: must be from 1 to 100",
        "error: --jobs 0: must be at least 1",
        "error: --methods badge: of figure2 it is some of random, entropy, least_confidence, margin, AAL",
        "error: --batches 7: of figure2 it is some of 1000, 2500, 5000",
    ]
    assert reproduce.main(["figure4", "--methods", "AAL", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: --methods AAL: figure4 has no choice\n"
    assert reproduce.main([*WORDS, "--out", str(ROOT / "main.py")]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out {ROOT / 'main.py'}: cannot be used")
    assert reproduce.main([*WORDS, "--out", "/proc/nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: --out /proc/nowhere: cannot be used")


@pytest.mark.unit
def test_names_are_those_of_the_settings(tmp_path: pathlib.Path) -> None:
    words = ["figure2", "--data_type", "CIFAR100", "--methods", "aal", "UncertaintyMargin", "Least-Confidence"]
    setup, out = reproduce._checked(reproduce._parser().parse_args(words))
    assert (setup.data_type, setup.methods) == ("cifar-100", ("least_confidence", "margin", "AAL"))
    assert (out, setup.seeds) == (pathlib.Path("results/cifar-100-cpu"), 3)
    setup, _ = reproduce._checked(reproduce._parser().parse_args(["figure4", "--scale", "tiny"]))
    assert (setup.data_type, setup.seeds) == ("digits", 1)


@pytest.mark.unit
def test_finished_runs_are_not_run_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "START", ["/nothing/here"])
    for run in plan_of("figure2", SETUP):
        finished_run(run, tmp_path / "runs", [0.5, 0.6, 0.7, 0.8, 0.9])
    assert reproduce.main([*WORDS, "--out", str(tmp_path)]) == 0
    assert f"page: {tmp_path / 'figure2.md'}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("figure2.*")} == {
        f"figure2.{kind}" for kind in ("png", "pdf", "csv", "md")
    }


@pytest.mark.unit
def test_a_failed_check_is_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in plan_of("figure2", SETUP):
        finished_run(run, tmp_path / "runs", [0.5, 0.6, 0.7, 0.8, 0.9], epoch=2 if run.seed else 3)
    assert reproduce.main([*WORDS, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "error: check failed: The epoch that was kept is the best on the validation images, the last of equals\n"
    )
    assert (
        "**failed**: random-async-batch5000-seed1, AAL-async-batch5000-seed1" in (tmp_path / "figure2.md").read_text()
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("scale", "gpus", "jobs", "runs"),
    [("cpu", 2, None, 3), ("paper", 2, None, 2), ("paper", 0, None, 3), ("paper", 2, 5, 5), ("cpu", 0, 1, 1)],
)
def test_each_run_has_a_gpu_or_a_core(
    monkeypatch: pytest.MonkeyPatch, scale: str, gpus: int, jobs: int | None, runs: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(reproduce, "core_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    setup = Setup(scale, "cifar-10", "data", 1, ("AAL",), (1000,))
    found = reproduce._environments("figure2", setup, jobs)
    assert len(found) == runs
    assert all(("CUDA_VISIBLE_DEVICES" in one) == (scale == "paper" and gpus > 0) for one in found)


@pytest.mark.unit
def test_runs_share_the_gpus_that_the_user_allows_and_keep_their_path() -> None:
    def devices(gpus: int, **own: str) -> list[str | None]:
        return [one.get("CUDA_VISIBLE_DEVICES") for one in sweep.environments_of(3, gpus, own)]

    assert devices(2) == ["0", "1", "0"]
    assert devices(2, CUDA_VISIBLE_DEVICES="3, GPU-7f") == ["3", "GPU-7f", "3"]
    assert devices(0, CUDA_VISIBLE_DEVICES="") == [""] * 3 and devices(0) == [None] * 3
    assert sweep.environments_of(1, 0, {"PYTHONPATH": "mine"})[0]["PYTHONPATH"] == f"{ROOT}{os.pathsep}mine"
    assert sweep.environments_of(1, 0, {"HOME": "here"}) == [{"HOME": "here", "PYTHONPATH": str(ROOT)}]


@pytest.mark.process
@pytest.mark.parametrize("code", [1, 3])
def test_a_run_that_fails_ends_the_others(
    out: pathlib.Path, monkeypatch: pytest.MonkeyPatch, left_behind: Callable[[], set[psutil.Process]], code: int
) -> None:
    monkeypatch.setattr(sweep, "START", [sys.executable, "-c", FAILING.format(code=code)])
    with pytest.raises(
        RunFailed, match=r"^AAL-async-batch5000-seed0: the disk is full; see .*/logs/AAL-async-batch5000"
    ):
        run_two_at_a_time(out, plan_of("figure2", SETUP))
    assert not left_behind()
    assert set(sweep.seconds_taken(out)) == {"random-async-batch5000-seed0", "AAL-async-batch5000-seed0", "figure2"}


@pytest.mark.process
def test_begun_runs_are_resumed(
    out: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "START", [sys.executable, "-c", PATIENT.replace("time.sleep(600)", "")])
    begun, absent = plan_of("figure2", SETUP)[:2]
    finished_run(begun, out / "runs", [0.5, 0.6], ended="interrupted")
    folder, config = out / "runs" / absent.name, out / "configs" / f"{absent.name}.yaml"
    folder.mkdir()
    (folder / ".tmp-config.yaml-7").touch()  # of a run that was killed before it had begun
    assert run_two_at_a_time(out, [begun, absent]) == "finished"
    words = {path.stem: path.read_text() for path in (out / "logs").iterdir()}
    assert f"'--resume', '{out / 'runs' / begun.name}'" in words[begun.name]
    assert f"'--config', '{config}', '--out', '{folder}'" in words[absent.name]
    assert config.is_file() and not any(folder.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert {line.split()[1] for line in lines} == {begun.name, absent.name}
    assert [line.split(", ")[1] for line in lines] == ["1 left", "0 left"]


@pytest.mark.process
@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_sweep_that_is_stopped_leaves_no_process_behind(
    tmp_path: pathlib.Path, left_behind: Callable[[], set[psutil.Process]], kind: signal.Signals
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "reproduce.py"), *WORDS, "--out", str(out)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(list(out.glob("runs/*/run.db"))) == min(2, len(os.sched_getaffinity(0))))
    process.send_signal(kind)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[kind]
    # One may have ended before the signal came.
    assert re.search("stopped with [234] of 4 runs to go; to go on: python reproduce.py figure2 --scale tiny", output)
    assert not left_behind()


@pytest.mark.process
def test_runs_die_with_a_sweep_that_is_killed(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "reproduce.py"), *WORDS, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(out.glob("runs/*/run.db")))
    runs = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not survivors(runs, seconds=5.0)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(240)
def test_a_figure_for_real(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(ROOT / "reproduce.py"), *WORDS, "--out", "out"]
    command[command.index("2", command.index("--seeds"))] = "1"
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=220)
    assert done.returncode == 0, done.stderr
    assert "figure2: random-async-batch5000-seed0 is done, " in done.stderr
    page = (tmp_path / "out" / "figure2.md").read_text()
    assert "**failed**" not in page and len(re.findall(r"\| kept +\|", page)) == 5
    assert "one seed: nothing is concluded" in page
    again = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert (again.returncode, again.stderr) == (0, "")
