"""Who hangs is found, and nothing else: the machine's sleep is no hang, a process in the driver cannot be killed."""

import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from aal.config.errors import RunFailed
from aal.coordination.messages import Status
from aal.engines import heartbeats as beats
from aal.engines import supervisor
from aal.engines.attempts import run_to_its_end
from aal.engines.base import Plan, Role, RunResult, RunStatus
from aal.engines.heartbeats import AwakeClock, Heartbeats
from aal.engines.local import liveness
from aal.engines.local import processes as local
from aal.engines.local.liveness import Peer, Watchdog
from aal.engines.processes import HubLost, Slot
from aal.engines.supervisor import Supervisor, supervise
from aal.reporting.progress import Progress
from tests.builders import imagined_plan, make_settings

pytestmark = pytest.mark.unit
STATUS = Status(0.0, 0, 30, 0, 0, None, None, finished=False, failure=None)
SLOTS = [Slot(Role("worker", "", "", 200), index) for index in range(200)]


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The time of `heartbeats`, which a test moves."""
    time_of = SimpleNamespace(now=100.0)
    monkeypatch.setattr(beats, "time", SimpleNamespace(monotonic=lambda: time_of.now))
    yield time_of


def test_the_sleep_of_the_machine_does_not_count(wall: SimpleNamespace) -> None:
    clock, heartbeats = AwakeClock(), Heartbeats()
    heartbeats.expect("worker-0")
    heartbeats.note({"worker-0": 1})
    for seconds in (0.5, 0.5, 3600.0):  # Ctrl-Z, and fg an hour later
        wall.now += seconds
        clock.now()
        heartbeats.note({"worker-0": 1})
    assert clock.now() == heartbeats.silent_s("worker-0") == 2.0
    heartbeats.note({"worker-0": 2})
    assert heartbeats.silent_s("worker-0") == 0.0


def test_a_process_that_starts_has_more_time(wall: SimpleNamespace) -> None:
    heartbeats = Heartbeats()
    heartbeats.note({"worker-0": 7})
    heartbeats.expect("worker-0")
    heartbeats.note({"worker-0": 7})  # of the process before it
    wall.now += 0.5
    assert heartbeats.silent_s("worker-0") == 0.5 - beats.START_S


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped before it has answered."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


@pytest.mark.parametrize(("seconds", "signals"), [(0.3, 0), (1e9, 1), (1e9, 2)])
def test_a_wait_ends_when_the_other_is_killed(
    stopped: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, seconds: float, signals: int
) -> None:
    monkeypatch.setattr(liveness, "AFTER_SIGNAL_S", (0.2, 0.1))
    assert stopped.stdout is not None
    caught: list[str] = []
    with Watchdog(caught) as watchdog:
        with watchdog.limit(seconds, Peer("hub", lambda: None), Peer("fork server", stopped.kill)):
            caught += signals * ["SIGINT"]
            assert stopped.stdout.read() == b""  # at once when it is dead
        assert (watchdog.take_killed() or "").startswith("hub: did not answer for ")
        assert watchdog.take_killed() is None


class Fake:
    """A process, a launcher and a monitor in one."""

    exitcode: int | None = None
    has_begun = True

    def __init__(self, caught: list[str]) -> None:
        self.started = self.kills = self.checks = 0
        self._caught = caught

    def start(self, slot: Slot) -> "Fake":
        self.started += 1
        if self.started == 3:
            self._caught.append("SIGINT")
        return self

    def kill(self) -> None:
        self.kills += 1

    def check(self) -> None:
        self.checks += 1

    def wait(self, processes: object, seconds: float) -> None: ...

    def status(self) -> Status:
        return STATUS

    def heartbeats(self) -> dict[str, int]:
        return {}

    def admit(self, slot: Slot) -> None: ...

    def look(self) -> None: ...


def supervised(fake: Any, slots: list[Slot], caught: list[str], **changes: Any) -> Supervisor:
    settings = make_settings().model_copy(update={"hung_after_s": 0.01, **changes})
    return Supervisor(settings, slots, fake, fake, Progress(None), caught)


def test_a_process_that_survives_being_killed_twice_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "KILL_S", 0.0)
    monkeypatch.setattr(supervisor, "LOOK_S", 0.0)
    monkeypatch.setattr(beats, "START_S", 0.0)
    fake = Fake([])
    with pytest.raises(RunFailed, match=r"worker-0: hangs and cannot be killed"):
        supervised(fake, SLOTS[:1], []).watch()
    assert fake.kills == 2 and fake.checks, "a fork server that does not report its end would be another failure"


def test_a_process_is_restarted_as_often_as_the_settings_allow() -> None:
    class Dead(Fake):
        exitcode, cause = -9, "its process was killed"

        def take_failures(self) -> list[str]:
            return []

        def release(self, role: str, index: int) -> None: ...

    fake = Dead([])
    with pytest.raises(RunFailed, match=r"worker-0: its process was killed; restart_limit=2 is reached"):
        supervised(fake, SLOTS[:1], [], restart_limit=2).watch()
    assert fake.started == 3


@pytest.mark.parametrize("limit", [0, 2])
def test_a_hub_is_replaced_as_often_as_the_settings_allow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, limit: int
) -> None:
    attempts: list[Any] = []

    def lose(plan: Plan) -> RunResult:
        attempts.append(plan.resume)
        raise HubLost("hub: its process was killed")

    monkeypatch.setattr("aal.engines.attempts.take_over", lambda record: record)
    plan = imagined_plan(tmp_path, restart_limit=limit)
    with pytest.raises(RunFailed, match=rf"hub: its process was killed; restart_limit={limit} is reached"):
        run_to_its_end(plan, Progress(None), [], lose)
    assert attempts == [None, *limit * [plan.run / "run.db"]]


def test_an_interrupt_stays_one_where_the_engine_is_lost_by_then() -> None:
    class Lost(Fake):
        grace_s: float | None = None

        def stop(self) -> None:
            raise RunFailed("the head of the Ray cluster is gone")

        def end(self, processes: object, grace_s: float, caught: object) -> None:
            self.grace_s = grace_s

        def close(self, ended: str) -> str | None:
            raise RunFailed("the head of the Ray cluster is gone")

    fake: Any = Lost(["SIGINT"])
    assert supervise(supervised(fake, SLOTS[:1], ["SIGINT"]), fake) == RunResult.interrupted("SIGINT")
    assert fake.grace_s == 0.0, "its processes were not ended"


def test_ctrl_c_is_heard_while_many_hung_processes_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((supervisor, "LOOK_S"), (beats, "START_S")):
        monkeypatch.setattr(module, name, 0.0)
    caught: list[str] = []
    killed: list[Fake] = []

    class Killed(Fake):
        def kill(self) -> None:
            killed.append(self)
            if len(killed) == 7:
                caught.append("SIGINT")

    fake = Fake(caught)
    monkeypatch.setattr(fake, "start", lambda slot: Killed(caught))
    assert supervised(fake, SLOTS[:20], caught).watch().status is RunStatus.INTERRUPTED
    assert len(killed) == 7


def test_a_role_whose_code_ends_its_process_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    def run_roles(*_: object) -> None:
        sys.exit(0)

    monkeypatch.setattr(local, "end_with_parent", lambda: None)
    monkeypatch.setattr(local, "log_to", lambda run, name: None)
    monkeypatch.setattr(local, "faulthandler", SimpleNamespace(register=lambda number, file, **_: file.close()))
    monkeypatch.setattr(local, "run_roles", run_roles)
    reported: list[str] = []
    hub = SimpleNamespace(report_failure=lambda name, reason: reported.append(f"{name}: {reason}"))
    with pytest.raises(SystemExit) as ended:
        local.run_slot(SLOTS[0], 0, tmp_path, make_settings(), hub, 0.0)
    assert (ended.value.code, reported) == (1, ["worker-0: SystemExit: 0"])


def test_ctrl_c_ends_the_start_of_many_processes() -> None:
    caught: list[str] = []
    fake = Fake(caught)
    assert supervised(fake, SLOTS, caught).watch().status is RunStatus.INTERRUPTED
    assert fake.started == 3
