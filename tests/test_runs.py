"""Whole runs as a user starts them: real processes on the digits, finished, interrupted, killed."""

import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICK = [
    *("worker_num=3", "worker_query_num=4", "query_batch=10", "server_train_threshold=30", "server_num=2"),
    *("training.epochs=4", "annotators.number=30", "annotators.seconds_per_label=0.05"),
]
ENDLESS = [*QUICK, "training.epochs=100000", "max_staleness=null"]


def command(out: pathlib.Path, *words: str) -> list[str]:
    return [sys.executable, "main.py", "--config", "digits.yaml", "--out", str(out), *words]


def query(run: pathlib.Path, sql: str) -> list[tuple]:
    db = sqlite3.connect(f"{(run / 'run.db').resolve().as_uri()}?mode=ro", uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def role_of(run: pathlib.Path, name: str) -> int:
    """The number of a role's process, as its log line tells."""
    for line in (run / "log.txt").read_text().splitlines():
        words = line.split()
        if len(words) > 3 and words[2] == name:
            return int(words[3])
    return 0


@pytest.fixture
def started(tmp_path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], pathlib.Path]]:
    """A run whose first training never ends within the test."""
    run = tmp_path / "run"
    with subprocess.Popen(
        command(run, *ENDLESS), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: (run / "log.txt").exists() and role_of(run, "server-0") and role_of(run, "annotators"))
        time.sleep(0.5)
        yield process, run
        for child in [*family(process)] if process.poll() is None else []:
            child.kill()
        process.kill()


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_run_from_the_command_to_the_report(tmp_path: pathlib.Path, mode: str) -> None:
    run = tmp_path / "run"
    done = subprocess.run(command(run, *QUICK, f"mode={mode}"), cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["labels"] == {"initial": 60, "bought": 120, "total": 180}
    assert summary["mode"] == mode and summary["trainings"] >= 3
    assert query(run, "select max(labels) from models") == [(180,)]
    assert query(run, "select count(distinct item) from queries where answered_at is not null") == [(120,)]
    parts = dict(query(run, "select part, count(*) from examples group by part"))
    assert parts["initial"] == 60 and parts["validation"] == 100 and sum(parts.values()) == 1797
    joined = "select count(*) from queries join examples using (item)"
    foreign = f"{joined} where part <> 'shard' or queries.worker <> examples.worker"
    assert query(run, foreign) == [(0,)]
    assert query(run, f"{joined} where label <> truth") == [(0,)]
    assert query(run, "select value from meta where key = 'ended'") == [("finished",)]
    for (path,) in query(run, "select path from models"):
        assert (run / path).is_file()
    assert f"report: {run / 'report' / 'report.md'}" in done.stdout
    rounds = query(run, "select version, count(*) from queries group by version order by version")
    if mode == "sync":
        assert rounds == [(0, 30), (1, 30), (2, 30), (3, 30)]
        assert summary["staleness"]["max"] == 0


def test_wrong_labels_are_counted(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*QUICK, "worker_query_num=2", "annotators.error_rate=0.5", "models=[cnn, resnet18]", "width=0.25"]
    done = subprocess.run(command(run, *words), cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    ((wrong,),) = query(run, "select count(*) from queries join examples using (item) where label <> truth")
    assert 10 < wrong < 50
    assert {name for (name,) in query(run, "select distinct model from models")} <= {"cnn", "resnet18"}


def test_the_same_seed_gives_the_same_split_and_first_model(tmp_path: pathlib.Path) -> None:
    rows = []
    for name in ("a", "b"):
        run = tmp_path / name
        words = [*QUICK, "worker_query_num=1", "devices.server_threads=1"]
        subprocess.run(command(run, *words, "--seed", "5"), cwd=ROOT, capture_output=True, timeout=150, check=True)
        first = query(run, "select labels, val_accuracy, test_accuracy, epoch from models where version = 0")
        rows.append((query(run, "select item, part, worker from examples order by item"), first))
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_everything_and_keeps_what_was_done(
    started: tuple[subprocess.Popen[str], pathlib.Path], kind: signal.Signals, code: int
) -> None:
    process, run = started
    children = family(process)
    assert len(children) >= 7
    process.send_signal(kind)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert_gone(children)
    assert query(run, "select value from meta where key = 'ended'") == [("interrupted",)]
    assert query(run, "select count(*) from examples") == [(1797,)]
    assert (run / "report" / "report.md").exists()


def test_a_killed_role_ends_the_run_by_name(started: tuple[subprocess.Popen[str], pathlib.Path]) -> None:
    process, run = started
    children = family(process)
    os.kill(role_of(run, "server-0"), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: server-0: was killed by SIGKILL" in errors and "Traceback" not in errors
    assert_gone(children)


def test_a_killed_main_leaves_no_process_behind(started: tuple[subprocess.Popen[str], pathlib.Path]) -> None:
    process, _ = started
    children = family(process)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(children)


def test_a_device_that_is_not_there_is_the_users_mistake(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        command(run, *QUICK, "devices.servers=cuda:77"), cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "server-" in told[0] and "cuda:77 is not there" in told[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "nothing.yaml"], "nothing.yaml: no such file"),
        ([], "--config: must be given"),
        (["--config", "digits.yaml", "worker_num=0"], "worker_num"),
        (["--config", "digits.yaml", "initial_size=2000"], "initial_size"),
        (["--config", "folder.yaml", "data_dir=/nowhere/at/all"], "data_dir"),
        (["--config", "digits.yaml", "--out", str(ROOT)], "--out"),
        (["--resume", "runs/x"], "--resume"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(words: list[str], told: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and told in line
    assert not (tmp_path / "runs").exists(), "no run was begun"


def test_help_tells_every_setting() -> None:
    done = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for word in ("worker_num", "annotators.error_rate", "training.epochs", "python main.py --config digits.yaml"):
        assert word in done.stdout
