"""Whole runs as a user starts them: real processes on the digits, finished, interrupted, killed."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from aal.config.errors import UserError
from aal.coordination.fence import UNDER_ONE_HUB
from aal.engines.base import RunResult, RunStatus
from aal.engines.local.engine import LocalEngine
from aal.engines.simulated.stand_ins import stand_ins
from aal.reporting.progress import Progress
from aal.storage.model_files import load_model
from bench.run_process import survivors
from tests.builders import imagined_plan, query, wait_for

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICK = [
    *("worker_num=3", "worker_query_num=4", "query_batch=10", "server_train_threshold=30", "server_num=2"),
    *("training.epochs=4", "annotators.number=30", "annotators.seconds_per_label=0.05"),
]
# The annotators go on for minutes, so that a test can interrupt them.
ENDLESS = [*QUICK, "worker_query_num=20", "annotators.seconds_per_label=2", "max_staleness=null"]


def command(out: pathlib.Path, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "main.py"), "--config", "digits.yaml", "--out", str(out), *words]


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(children: list[psutil.Process]) -> None:
    assert not survivors(children, seconds=5.0)


def role_of(run: pathlib.Path, name: str) -> int:
    """The number of a role's newest process, as the log tells."""
    lines = [line.split() for line in (run / "log.txt").read_text().splitlines()]
    return next(int(words[3]) for words in reversed(lines) if words[2:3] == [name] and words[-1:] == ["started"])


def answered(run: pathlib.Path) -> int:
    """Answers on disk, 0 while there is no table of them."""
    if not (run / "run.db").exists():
        return 0
    try:
        return int(query(run, "select count(*) from queries where answered_at is not null")[0][0])
    except sqlite3.OperationalError:
        return 0


def more_than(run: pathlib.Path, number: int) -> bool:
    return answered(run) > number


def is_logged(run: pathlib.Path, words: str) -> bool:
    return words in (run / "log.txt").read_text()


def kill(main: subprocess.Popen[str], run: pathlib.Path, role: str) -> None:
    """Kills a role's newest process, or the hub's."""
    if role != "hub":
        os.kill(role_of(run, role), signal.SIGKILL)
        return
    known = {int(line.split()[3]) for line in (run / "log.txt").read_text().splitlines() if line[:1].isdigit()}
    for process in family(main):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that was killed before may be gone by now
            holds = [file.path for file in process.open_files()]
            if process.pid not in known and str(run / "run.db") in holds:
                process.kill()


def resume(run: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "main.py", "--resume", str(run), *words]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120)


def assert_whole(run: pathlib.Path, bought: int) -> None:
    """What must always hold, from `run.db` alone."""
    assert query(run, "select count(*), count(label), count(arrival) from queries") == [(bought,) * 3]
    assert query(run, "select count(*) from (select distinct arrival from queries)") == [(bought,)]
    joined = "select count(*) from queries join examples using (item)"
    assert query(run, f"{joined} where part = 'shard' and queries.worker = examples.worker") == [(bought,)]
    assert query(run, f"{joined} where label = truth") == [(bought,)]
    assert query(run, "select max(labels) from models") == [(60 + bought,)]
    for (path,) in query(run, "select path from models"):
        load_model(run / path)


@pytest.fixture
def started(tmp_path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], pathlib.Path]]:
    """A run whose second training never ends within the test."""
    run = tmp_path / "run"
    with subprocess.Popen(
        command(run, *ENDLESS), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: answered(run) > 0)
        yield process, run
        for child in [*family(process)] if process.poll() is None else []:
            child.kill()
        process.kill()


@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.slow)])
def test_a_run_from_the_command_to_the_report(tmp_path: pathlib.Path, mode: str) -> None:
    run = tmp_path / "run"
    done = subprocess.run(command(run, *QUICK, f"mode={mode}"), cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["labels"] == {"initial": 60, "bought": 120, "total": 180}
    assert summary["mode"] == mode and summary["trainings"] >= 2
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
    assert query(run, "select model from models where version = 0") == [("cnn",)], "whichever server trained it"
    trained = set(query(run, "select server, model from models where version > 0"))
    assert trained <= {(0, "cnn"), (1, "resnet18")} and trained


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
    if signal.getsignal(kind) is signal.SIG_IGN:
        pytest.skip(f"{kind.name} is ignored here, as by nohup, and so by the runs too")
    process, run = started
    children = family(process)
    assert len(children) >= 7
    process.send_signal(kind)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors and f"to go on: python main.py --resume {run}" in output
    assert_gone(children)
    assert query(run, "select value from meta where key = 'ended'") == [("interrupted",)]
    assert query(run, "select count(*) from examples") == [(1797,)]
    assert (run / "report" / "report.md").exists()
    bought = json.loads((run / "summary.json").read_text())["labels"]["bought"]
    assert query(run, "select count(*) from queries where answered_at is not null") == [(bought,)]
    assert bought > 0


@pytest.mark.parametrize(
    "seconds", [0.4, pytest.param(0.7, marks=pytest.mark.slow), 1.0, pytest.param(1.4, marks=pytest.mark.slow)]
)
def test_ctrl_c_while_the_roles_start(tmp_path: pathlib.Path, seconds: float) -> None:
    with subprocess.Popen(
        command(tmp_path / "run", *ENDLESS),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_nobody_listens_and_the_run_goes_on(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = " ".join(command(run, *QUICK, "worker_query_num=2"))
    done = subprocess.run(f"umask 0; {words} 2>/dev/full >/dev/full", shell=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0
    assert_whole(run, bought=60)
    for path in [run, *run.rglob("*")]:
        assert not path.stat().st_mode & 0o022, f"{path} is writable by others"


def test_a_second_ctrl_c_ends_at_once(started: tuple[subprocess.Popen[str], pathlib.Path]) -> None:
    process, run = started
    children = family(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors and "to go on: python main.py --resume" in out
    assert_gone(children)
    assert not (run / "report").exists()
    assert query(run, "pragma integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "role", ["server-0", "hub", *(pytest.param(role, marks=pytest.mark.slow) for role in ("worker-1", "annotators"))]
)
def test_on_failure_stop_ends_the_run_by_name(tmp_path: pathlib.Path, role: str) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        command(run, *ENDLESS, "on_failure=stop"), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: answered(run) > 0)
        children = family(process)
        kill(process, run, role)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"error: {role}: " in errors and "killed" in errors and "Traceback" not in errors
    assert_gone(children)


def test_workers_share_processes_and_a_killed_one_is_replaced(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = ["worker_num=5", "devices.worker_processes=2", "worker_query_num=4", "server_train_threshold=50"]
    with subprocess.Popen(
        # So slowly that the process which is started again finds labels left to buy.
        command(run, *QUICK, *words, "annotators.seconds_per_label=1.5"),
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: answered(run) > 10)
        kill(process, run, "worker-1")
        assert process.wait(timeout=120) == 0
    assert_whole(run, bought=200)
    assert query(run, "select count(distinct worker) from selections where version is not null") == [(5,)]
    started = [line.split()[2] for line in (run / "log.txt").read_text().splitlines() if line.endswith("INFO started")]
    assert sorted(name for name in started if name.startswith("worker")) == ["worker-0", "worker-1", "worker-1"]


def test_a_killed_main_leaves_no_process_behind(started: tuple[subprocess.Popen[str], pathlib.Path]) -> None:
    process, _ = started
    children = family(process)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(children)


@pytest.mark.parametrize("seconds", [0.6, 0.9, 1.3])
def test_a_main_killed_while_the_roles_start_leaves_no_process_behind(tmp_path: pathlib.Path, seconds: float) -> None:
    with subprocess.Popen(
        command(tmp_path / "run", *ENDLESS), cwd=tmp_path.parent, text=True, stderr=subprocess.PIPE
    ) as process:
        time.sleep(seconds)
        children = family(process)
        process.kill()
        assert not survivors(children, seconds=1.0)


def test_every_role_may_be_killed_once_and_the_run_goes_on(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    slow = ["worker_query_num=8", "annotators.seconds_per_label=0.5", "annotators.number=20"]
    with subprocess.Popen(
        command(run, *QUICK, *slow), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for role in ("annotators", "worker-1", "server-0", "hub"):
            wait_for(functools.partial(more_than, run, answered(run)))
            kill(process, run, role)
            wait_for(functools.partial(is_logged, run, f"WARNING {role}: "))
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    for role in ("annotators", "worker-1", "server-0", "hub"):
        assert f"{role}: " in errors and "killed" in errors
    assert_whole(run, bought=240)
    assert query(run, "select count(*) from breaks") == [(1,)]


def test_a_hung_role_is_named_its_stack_is_written_and_it_is_replaced(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*QUICK, "hung_after_s=5", "worker_query_num=8", "annotators.seconds_per_label=0.3"]
    with subprocess.Popen(
        command(run, *words), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: answered(run) > 0)
        os.kill(role_of(run, "annotators"), signal.SIGSTOP)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "annotators: made no progress for 5 s" in errors
    assert_whole(run, bought=240)


def test_a_run_killed_with_main_is_resumed_to_its_end(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    words = [*QUICK, "worker_query_num=6", "annotators.seconds_per_label=0.3"]
    with subprocess.Popen(command(run, *words), cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        wait_for(lambda: answered(run) > 20)
        os.kill(role_of(run, "annotators"), signal.SIGSTOP)  # or all may be labelled before main is killed
        config = (run / "config.yaml").read_bytes()
        second = resume(run, "worker_query_num=9")
        assert (run / "config.yaml").read_bytes() == config
        assert second.returncode == 2 and "another program runs in this directory" in second.stderr
        children = family(process)
        process.kill()
        process.communicate(timeout=30)
        assert_gone(children)
    spoilt = resume(run, "val_size=50", "query_strategy=margin", "assignment_type=DA")
    assert spoilt.returncode == 2
    assert [line.split(":")[1].strip() for line in spoilt.stderr.splitlines()] == [
        "assignment_type",
        "query_strategy",
        "val_size",
    ]
    begun = query(run, "select value from meta where key = 'started'")
    before = query(run, "select item, label from queries where answered_at is not null")
    done = resume(run, "devices.servers=cpu")
    assert done.returncode == 0, done.stderr
    assert_whole(run, bought=180)
    assert set(before) <= set(query(run, "select item, label from queries"))
    assert query(run, "select value from meta where key = 'started'") == begun
    later = [path for (path,) in query(run, "select path from models, breaks where published_at > resumed_at")]
    assert later and all(path.endswith(f"-{2 * UNDER_ONE_HUB}.pt") for path in later), "no earlier process writes there"
    page = (run / "report" / "report.md").read_text()
    assert "Interrupted at" in page
    again = resume(run)
    assert again.returncode == 0 and "is finished" in again.stdout
    config = (run / "config.yaml").read_bytes()
    assert resume(run, "worker_query_num=7", "devices.servers=cuda:77").returncode == 2
    assert resume(run, "devices.servers=cuda:77").returncode == 0, "it is finished, wherever it ran"
    assert (run / "config.yaml").read_bytes() == config
    both = resume(run, "query_strategy=random", "training.epochs=3").stderr.splitlines()
    text = "cannot be changed in a run that has begun; start a new one"
    assert both == [f"error: query_strategy: {text}", f"error: training.epochs: {text}"]
    more = resume(run, "worker_query_num=7")
    assert more.returncode == 0, more.stderr
    assert_whole(run, bought=210)


def test_a_device_that_is_not_there_is_the_users_mistake(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        command(run, *QUICK, "devices.servers=cuda:77", "devices.workers=[cpu, cuda:78]"),
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2 and not run.exists()
    missing = [line.partition(" is not there, PyTorch sees ")[0] for line in done.stderr.splitlines()]
    assert missing == ["error: devices.servers: cuda:77", "error: devices.workers: cuda:78"]


def without_memory(*_: object) -> None:
    raise UserError("cuda:0: has no memory left for a training")


def test_what_only_the_user_can_mend_is_reported_by_the_role_that_met_it(tmp_path: pathlib.Path) -> None:
    plan = imagined_plan(tmp_path / "run")
    roles = [dataclasses.replace(plan.roles[0], build="tests.test_runs:without_memory")]
    result = LocalEngine().run(dataclasses.replace(plan, roles=roles), Progress())
    assert result == RunResult(RunStatus.FAILED, "server-0: cuda:0: has no memory left for a training", 2)


def test_a_run_of_processes_that_compute_nothing_buys_every_label_once(tmp_path: pathlib.Path) -> None:
    """The wiring of the engine itself: workers that share processes, every proxy, the record."""
    shape = {"worker_num": 3, "worker_query_num": 2, "query_batch": 5, "server_train_threshold": 10, "server_num": 2}
    plan = stand_ins(imagined_plan(tmp_path / "run", **shape, annotators={"seconds_per_label": 0.0}))
    server, worker, annotators = plan.roles
    roles = [server, dataclasses.replace(worker, processes=2), annotators]
    result = LocalEngine().run(dataclasses.replace(plan, roles=roles), Progress())
    assert result == RunResult(RunStatus.FINISHED), result
    assert query(plan.run, "select count(*), count(distinct item), count(label) from queries") == [(30, 30, 30)]
    names = set(re.findall(r" (\S+) \d+ INFO started", (plan.run / "log.txt").read_text()))
    assert names == {"server-0", "server-1", "worker-0", "worker-1", "annotators"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "nothing.yaml"], "nothing.yaml: no such file"),
        ([], "--config: must be given"),
        (["--config", "digits.yaml", "worker_num=0"], "worker_num"),
        (["--config", "digits.yaml", "initial_size=2000"], "initial_size"),
        (["--config", "folder.yaml", "data_dir=/nowhere/at/all"], "data_dir"),
        (["--config", "digits.yaml", "--out", str(ROOT)], "--out"),
        (["--resume", "runs/x"], "--resume runs/x: is no run directory"),
        (["--resume", "x", "--config", "digits.yaml"], "--config: not with --resume"),
        (["--resume", "x", "--seed", "3"], "--seed"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(words: list[str], message: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("preparing the images")]
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "runs").exists(), "no run was begun"


def test_help_tells_every_setting() -> None:
    done = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for word in ("worker_num", "annotators.error_rate", "training.epochs", "python main.py --config digits.yaml"):
        assert word in done.stdout
