"""A hub or a fork server that dies or hangs, and whatever else may happen to the processes of a run."""

import contextlib
import ctypes
import functools
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from aal.engines.base import Plan, RunResult, RunStatus
from aal.engines.local import fork_server
from aal.engines.local.engine import LocalEngine
from aal.engines.resources import open_files
from aal.engines.simulated.stand_ins import stand_ins
from aal.engines.supervisor import Supervisor
from aal.reporting.progress import Progress
from bench.run_process import HELPERS, Run, survivors
from tests.builders import imagined_plan, query, wait_for

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ROOT = pathlib.Path(__file__).resolve().parent.parent


class Notes(Progress):
    """Keeps what is said of a run."""

    def __init__(self) -> None:
        super().__init__(None)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def plan_of(
    run: pathlib.Path, labels: int = 60, hung_after_s: float = 2.0, seconds_per_label: float = 0.2, **changes: Any
) -> Plan:
    """A run of real processes that compute nothing; its annotators take some seconds for all labels."""
    shape = {"worker_num": 2, "query_batch": 5, "server_train_threshold": 20, "worker_query_num": labels // 10}
    people = {"number": 5, "seconds_per_label": seconds_per_label}
    return stand_ins(imagined_plan(run, annotators=people, hung_after_s=hung_after_s, **shape | changes))


def processes(run: pathlib.Path) -> dict[str, psutil.Process]:
    """The processes of a run whose main process is this one."""
    return dict(Run(run, psutil.Process()).processes())  # type: ignore[arg-type]


@contextlib.contextmanager
def meanwhile(run: pathlib.Path, act: Callable[[], None]) -> Iterator[None]:
    """Does something when a run of this process has some answers."""

    def wait_and_act() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(Exception):  # until there is a table
                if query(run, "select count(*) from answers")[0][0] > 5:
                    return act()

    ended = threading.Event()
    thread = threading.Thread(target=wait_and_act)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def strike(run: pathlib.Path, name: str, kind: signal.Signals, ctrl_c: int = 0) -> None:
    processes(run)[name].send_signal(kind)
    for _ in range(ctrl_c):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("name", "kind", "cause"),
    [
        ("hub", signal.SIGSTOP, "hub: did not answer for "),
        pytest.param("fork server", signal.SIGSTOP, "fork server: did not answer for ", marks=pytest.mark.slow),
        pytest.param("fork server", signal.SIGKILL, "fork server: its process was killed", marks=pytest.mark.slow),
        ("resource tracker", signal.SIGKILL, None),
    ],
)
def test_a_hub_or_fork_server_that_dies_or_hangs_is_replaced(
    tmp_path: pathlib.Path, name: str, kind: signal.Signals, cause: str | None
) -> None:
    plan, notes = plan_of(tmp_path / "run"), Notes()
    with meanwhile(plan.run, functools.partial(strike, plan.run, name, kind)):
        result = LocalEngine().run(plan, notes)
    assert result == RunResult(RunStatus.FINISHED), result
    lost = [note for note in notes.notes if "going on from run.db" in note or "restarting" in note]
    assert lost[0].startswith(cause) if cause else not lost, notes.notes
    assert query(plan.run, "select count(*), count(distinct item), count(label) from queries") == [(60, 60, 60)]
    assert set(processes(plan.run)) <= {"main", *HELPERS.values()}


def test_a_fork_server_is_not_replaced_more_often_than_allowed(tmp_path: pathlib.Path) -> None:
    plan = plan_of(tmp_path / "run", on_failure="stop")
    with meanwhile(plan.run, fork_server.kill):
        result = LocalEngine().run(plan, Notes())
    assert result == RunResult(RunStatus.FAILED, "fork server: its process was killed", 1)


def test_a_hub_that_dies_before_it_has_recorded_the_end_is_replaced(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, notes, end = plan_of(tmp_path / "run", labels=20, hung_after_s=60.0), Notes(), Supervisor.end
    hubs: list[psutil.Process] = []

    def end_and_kill(supervisor: Supervisor) -> None:
        end(supervisor)
        hubs.append(processes(plan.run)["hub"])
        if len(hubs) == 1:
            hubs[0].kill()

    monkeypatch.setattr(Supervisor, "end", end_and_kill)
    assert LocalEngine().run(plan, notes).status is RunStatus.FINISHED
    assert "hub: its process was killed; going on from run.db (1 of 3)" in notes.notes and len(hubs) == 2
    assert query(plan.run, "select value from meta where key = 'ended'") == [("finished",)]


@pytest.mark.parametrize(("name", "ctrl_c"), [("hub", 1), ("hub", 2), ("fork server", 1), ("server-0", 1)])
def test_ctrl_c_is_heard_while_a_process_is_stopped(tmp_path: pathlib.Path, name: str, ctrl_c: int) -> None:
    plan = plan_of(tmp_path / "run", labels=1000, hung_after_s=3600.0)
    with meanwhile(plan.run, functools.partial(strike, plan.run, name, signal.SIGSTOP, ctrl_c)):
        result = LocalEngine().run(plan, Notes())
    assert (result.status, result.cause, result.at_once) == (RunStatus.INTERRUPTED, "SIGINT", ctrl_c == 2)
    assert set(processes(plan.run)) <= {"main", *HELPERS.values()}


def test_a_program_whose_parent_blocks_signals_ends_and_is_interrupted(tmp_path: pathlib.Path) -> None:
    fork_server.kill()  # so that a new one inherits what is blocked
    blocked = {signal.SIGCHLD, *(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP"))}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        assert LocalEngine().run(plan_of(tmp_path / "a", labels=20), Notes()).status is RunStatus.FINISHED
        plan = plan_of(tmp_path / "b", labels=1000)
        with meanwhile(plan.run, lambda: os.kill(os.getpid(), signal.SIGINT)):
            assert LocalEngine().run(plan, Notes()).status is RunStatus.INTERRUPTED
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)


def test_the_open_files_that_a_run_is_said_to_need_are_enough(tmp_path: pathlib.Path) -> None:
    with started(tmp_path / "run", 20, limit=open_files(1 + 4)) as process:
        said, errors = process.communicate(timeout=100)
    assert said == "FINISHED \n" and "Traceback" not in errors


RUN = """
import pathlib, sys
from aal.engines.local.engine import LocalEngine
from aal.reporting.progress import Progress
from tests.test_faults import plan_of
result = LocalEngine().run(plan_of(pathlib.Path(sys.argv[1]), labels=int(sys.argv[2])), Progress(sys.stderr))
print(result.status.name, result.cause)
"""


def started(run: pathlib.Path, labels: int, limit: int = 1024) -> subprocess.Popen[str]:
    """A program of its own that runs the plan, with so many open files."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(run), str(labels)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )  # fmt: skip


@pytest.mark.parametrize("way", ["a script without a guard", "from stdin"])
def test_a_run_is_started_by_any_program(tmp_path: pathlib.Path, way: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUN)
    words = [sys.executable, "-" if way == "from stdin" else str(script), str(tmp_path / "run"), "20"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, input=RUN, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout == "FINISHED \n" and "Error" not in done.stderr, done.stderr


def test_runs_in_threads_of_one_program_do_not_end_with_one_another(tmp_path: pathlib.Path) -> None:
    """The kernel would kill what the first thread has started when that thread ends."""
    fork_server.kill()  # so that the first run starts it
    results: dict[str, RunResult] = {}
    notes = {name: Notes() for name in ("short", "long")}

    def run(name: str, labels: int) -> None:
        results[name] = LocalEngine().run(plan_of(tmp_path / name, labels), notes[name])

    threads = [threading.Thread(target=run, args=("short", 20)), threading.Thread(target=run, args=("long", 160))]
    threads[0].start()
    wait_for_log(tmp_path / "short", "started")
    threads[1].start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(notes, RunResult(RunStatus.FINISHED)), results
    assert not [note for note in notes["long"].notes if "going on" in note or "restarting" in note]


def wait_for_log(run: pathlib.Path, word: str) -> None:
    """Waits until a word stands in the log of a run."""
    log = run / "log.txt"
    wait_for(lambda: log.exists() and word in log.read_text())


def test_stopped_processes_do_not_outlive_main_and_its_folder_goes_with_the_next_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))  # the name of tmp_path is too long for a socket
    monkeypatch.setenv("TMPDIR", str(temporary))
    with started(tmp_path / "run", 1000) as process:
        wait_for_log(tmp_path / "run", "published")
        family = psutil.Process(process.pid).children(recursive=True)
        for child in family:
            child.send_signal(signal.SIGSTOP)
        process.kill()
        assert len(family) >= 6 and not survivors(family, seconds=10)
    assert len(list(temporary.glob("aal-sockets-*"))) == 1, "no process was left to remove it"
    with started(tmp_path / "next", 20) as process:
        assert process.communicate(timeout=100)[0] == "FINISHED \n"
    assert not [path for path in temporary.iterdir() if re.match("aal|pymp", path.name)]
    shutil.rmtree(temporary)


@pytest.mark.skipif(not fork_server._setpriv(), reason="no setpriv here")
@pytest.mark.parametrize("name", ["fork server", "resource tracker"])
def test_a_helper_that_is_stopped_at_its_birth_does_not_outlive_main(tmp_path: pathlib.Path, name: str) -> None:
    """It has no time to ask the kernel for anything itself."""
    module = next(module for module, helper in HELPERS.items() if helper == name)
    born: list[psutil.Process] = []
    with started(tmp_path / "run", 1000) as process:
        while not born:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children()
                born = [child for child in family if "python" in child.name() and module in " ".join(child.cmdline())]
        born[0].suspend()
        process.kill()
    assert not survivors(born, seconds=10)


def report_death_signal(connection: Any) -> None:
    """Sends which signal this process gets when its parent ends."""
    value = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(value))  # PR_GET_PDEATHSIG
    connection.send(value.value)


def test_a_start_that_finds_the_fork_server_dead_has_one_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    context = fork_server.fork_context()
    fork_server.kill()
    here, there = context.Pipe()
    with fork_server.starting():
        process = context.Process(target=report_death_signal, args=(there,))
        process.start()
    assert here.poll(60) and here.recv() == signal.SIGKILL
    process.join()


def test_main_itself_outlives_the_shell_that_started_it() -> None:
    code = "import ctypes, aal.engines.local.engine; signal = ctypes.c_int(); "
    code += "ctypes.CDLL(None).prctl(2, ctypes.byref(signal)); print(signal.value)"  # PR_GET_PDEATHSIG
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "0\n", done.stderr


def test_ctrl_z_for_longer_than_hung_after_s_kills_nobody(tmp_path: pathlib.Path) -> None:
    with started(tmp_path / "run", 60) as process:
        wait_for_log(tmp_path / "run", "offered")
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(4.0)  # twice as long
        os.killpg(process.pid, signal.SIGCONT)
        said, errors = process.communicate(timeout=100)
    assert said == "FINISHED \n" and "restarting" not in errors and "going on from" not in errors, errors
