"""Starts the processes of a run, watches them, restarts them when they die, and ends them, on every engine."""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeVar

from aal.config.errors import RunFailed, UserError
from aal.config.settings import Settings
from aal.coordination.interfaces import Monitor
from aal.engines.base import Display, RunResult, RunStatus
from aal.engines.heartbeats import AwakeClock, Heartbeats
from aal.engines.processes import HUB_GONE, MOVED, PERMANENT, USER_ERROR, WITH_ALL, WITHOUT_HUB, HubLost, Slot

POLL_S = 0.2
LOOK_S = 1.0  # between two looks at the heartbeats
GRACE_S = 3.0  # between the shutdown request and the end by force
KILL_S = 10.0  # for a killed process to end, however much memory it has to give back

log = logging.getLogger("aal")


class Process(Protocol):
    """A process that fills a slot."""

    @property
    def exitcode(self) -> int | None:
        """How it ended, below 0 where something else ended it; None while it is alive."""

    @property
    def cause(self) -> str:
        """What ended it, as far as its engine knows."""

    @property
    def has_begun(self) -> bool:
        """Whether it has had a place to run; the end of one that had none is not its failure."""

    def kill(self) -> None:
        """Ends it, with a dump of its stack where that is possible."""


P = TypeVar("P", bound=Process)


class Launcher(Protocol[P]):
    """How an engine starts processes and ends them."""

    def admit(self, slot: Slot) -> None:
        """Makes the next process of a slot the only one that the hub listens to; nothing of a former one goes on."""

    def start(self, slot: Slot) -> P:
        """Starts the process of a slot that was admitted last."""

    def look(self) -> None:
        """Looks after what all processes need; called several times a second."""

    def check(self) -> None:
        """Checks whether the ends of processes are reported; what hangs is killed."""

    def wait(self, processes: Sequence[P], seconds: float) -> None:
        """Waits until one of some processes has ended, at most for so long."""

    def end(self, processes: Collection[P], grace_s: float, caught: Sequence[str]) -> None:
        """Waits for the end of processes, then ends them; at once after a second signal."""


class Supervisor:
    """Keeps every slot filled until the run is over.

    Args:
        settings: of the run.
        slots: to fill.
        monitor: proxy of the hub's monitor.
        launcher: starts processes and ends them.
        display: where to show how far the run is.
        caught: names of the signals that came, filled by a handler.
    """

    def __init__(
        self,
        settings: Settings,
        slots: list[Slot],
        monitor: Monitor,
        launcher: Launcher[Any],
        display: Display,
        caught: list[str],
    ) -> None:
        self._settings = settings
        self._slots = slots
        self._monitor = monitor
        self._launcher = launcher
        self._display = display
        self._caught = caught
        self._processes: dict[Slot, Process] = {}
        self._restarts: Counter[str] = Counter()
        self._heartbeats = Heartbeats()
        self._clock = AwakeClock()
        self._looked_at = 0.0
        self._hung: set[str] = set()
        self._kills: defaultdict[Process, list[float]] = defaultdict(list)  # when each was killed

    def watch(self) -> RunResult:
        """Waits for the end of the run.

        Raises:
            HubLost: the hub, or what all processes come from, is gone.
            RunFailed: a process failed for good, or the record cannot be written.
            UserError: a role met what only the user can mend.
        """
        try:
            for slot in self._slots:
                if not self._caught:
                    self._fill(slot)
            while not self._caught:
                if self._ended():
                    return RunResult(RunStatus.FINISHED)
                self._launcher.wait(self._alive(), POLL_S)
        except HUB_GONE:
            raise HubLost from None
        return RunResult.interrupted(self._caught[0])

    def _ended(self) -> bool:
        """Looks once at everything; whether all roles have ended and the run is finished."""
        status = self._monitor.status()
        self._display.show(status)
        if status.failure is not None:
            raise RunFailed(status.failure)
        if status.interrupted and not self._caught:
            self._caught.append("SIGINT")
            return False
        for slot, process in list(self._processes.items()):
            if process.exitcode and not self._caught and not status.finished:
                self._restart(slot, process)
        self._find_hung()
        self._launcher.look()
        if self._alive():
            return False
        if self._monitor.status().finished:
            return True
        if any(process.exitcode for process in self._processes.values()):  # killed since it was looked at
            return False
        raise RunFailed("every role ended before the budget was bought")

    def _alive(self) -> list[Process]:
        return [process for process in self._processes.values() if process.exitcode is None]

    def _restart(self, slot: Slot, process: Process) -> None:
        """Fills the slot of a process that died, or that is to go on elsewhere.

        Raises:
            HubLost: it died with what all processes come from.
            RunFailed: it may not be restarted.
            UserError: it died of what only the user can mend.
        """
        if process.exitcode == MOVED:
            return self._fill(slot)
        if process.exitcode == WITH_ALL:
            raise HubLost
        if process.exitcode == WITHOUT_HUB:
            self._monitor.status()  # raises when the hub is gone for this process too
        cause = self._cause(slot, process)
        if process.exitcode == USER_ERROR:
            raise UserError(cause)
        limit = self._settings.restart_limit
        if not process.has_begun:
            return self._fill(slot)
        if self._settings.on_failure == "stop" or process.exitcode == PERMANENT:
            raise RunFailed(cause)
        if self._restarts[slot.name] >= limit:
            raise RunFailed(f"{cause}; restart_limit={limit} is reached")
        self._restarts[slot.name] += 1
        self._display.note(f"{cause}; restarting it ({self._restarts[slot.name]} of {limit})")
        log.warning("%s; restarting it", cause)
        self._fill(slot)

    def _fill(self, slot: Slot) -> None:
        """Starts a process for a slot, whose former one is shut out before it loses what it held."""
        self._launcher.admit(slot)
        if slot in self._processes:
            for member in slot.role.members(slot.index):
                self._monitor.release(slot.role.name, member)
        self._heartbeats.expect(slot.name)
        self._processes[slot] = self._launcher.start(slot)

    def _cause(self, slot: Slot, process: Process) -> str:
        if slot.name in self._hung:
            self._hung.discard(slot.name)
            stack = "its stack is in log.txt, if it could still run"
            return f"{slot.name}: made no progress for {self._settings.hung_after_s:g} s ({stack})"
        for reported in reversed(self._monitor.take_failures()):
            if reported.startswith(f"{slot.name}: "):
                return reported
        return f"{slot.name}: {process.cause}"

    def _find_hung(self) -> None:
        """Looks, now and then, at the heartbeats."""
        now, hung_after_s = self._clock.now(), self._settings.hung_after_s
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        self._heartbeats.note(self._monitor.heartbeats())
        for slot, process in self._processes.items():
            if not process.has_begun:
                self._heartbeats.expect(slot.name)
            is_hung = self._heartbeats.silent_s(slot.name) > hung_after_s and process.exitcode is None
            if is_hung and not self._caught:
                self._kill(slot, process)

    def _kill(self, slot: Slot, process: Process) -> None:
        """Kills a hung process, and once more if it has not ended by then.

        Raises:
            RunFailed: it survives that: it is stuck in a driver.
        """
        kills, now = self._kills[process], self._clock.now()
        if kills and now - kills[-1] < KILL_S:
            return
        if len(kills) == 2:
            self._launcher.check()  # where no end is reported, another one hangs
            raise RunFailed(f"{slot.name}: hangs and cannot be killed (a driver that does not respond?)")
        kills.append(now)
        self._hung.add(slot.name)
        process.kill()

    def end(self) -> None:
        """Requests shutdown, then ends all processes that go on."""
        grace_s = GRACE_S
        try:
            self._monitor.stop()
        except (RunFailed, *HUB_GONE):
            grace_s = 0.0  # no hub takes what they do
        self._launcher.end(self._processes.values(), grace_s, self._caught)


def supervise(supervisor: Supervisor, monitor: Monitor) -> RunResult:
    """Watches the processes of a run to its end, ends them, and closes the record.

    Raises:
        HubLost: the hub, or what all processes come from, is gone.
        HUB_GONE: the hub died after the run had finished and before the record says so.
        RunFailed: the engine cannot go on, at the same moment.
    """
    try:
        result = supervisor.watch()
    except (RunFailed, UserError) as error:
        result = RunResult.failed(error)
    finally:
        supervisor.end()
    try:
        unwritten = monitor.close(result.ended)
    except (RunFailed, *HUB_GONE):
        if result.status is RunStatus.FINISHED:  # which the record does not say yet
            raise
        return result
    return RunResult.failed(RunFailed(unwritten)) if unwritten else result
