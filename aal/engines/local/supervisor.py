"""Starts the processes of a run, watches them, restarts them when they die, and ends them."""

import logging
import os
import signal
from collections import Counter, defaultdict
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from aal.config.errors import RunFailed, UserError
from aal.config.settings import Settings
from aal.coordination.interfaces import Monitor
from aal.engines.base import Display, RunResult, RunStatus
from aal.engines.local import fork_server
from aal.engines.local.core_watch import CoreWatch
from aal.engines.local.launcher import Launcher
from aal.engines.local.liveness import AwakeClock, Heartbeats
from aal.engines.local.processes import HUB_GONE, PERMANENT, USER_ERROR, WITHOUT_HUB, HubLost, Slot
from aal.engines.local.shutdown import end_processes

POLL_S = 0.2
LOOK_S = 1.0  # between two looks at the heartbeats
PROBES = 4  # of the fork server in `hung_after_s`
GRACE_S = 3.0  # between the shutdown request and SIGTERM
DUMP_S = 0.5  # for a hung process to write its stack
KILL_S = 10.0  # for a killed process to end, however much memory it has to give back

log = logging.getLogger("aal")


class Supervisor:
    """Keeps every slot filled until the run is over.

    Args:
        settings: of the run.
        slots: to fill.
        monitor: proxy of the hub's monitor.
        launcher: starts processes.
        display: where to show how far the run is.
        caught: names of the signals that came, filled by a handler.
        cores: measures what other programs leave of the machine.
    """

    def __init__(
        self,
        settings: Settings,
        slots: list[Slot],
        monitor: Monitor,
        launcher: Launcher,
        display: Display,
        caught: list[str],
        cores: CoreWatch,
    ) -> None:
        self._settings = settings
        self._slots = slots
        self._monitor = monitor
        self._launcher = launcher
        self._display = display
        self._caught = caught
        self._cores = cores
        self._processes: dict[Slot, BaseProcess] = {}
        self._restarts: Counter[str] = Counter()
        self._heartbeats = Heartbeats()
        self._clock = AwakeClock()
        self._looked_at = self._probed_at = 0.0
        self._hung: set[str] = set()
        self._kills: defaultdict[BaseProcess, list[float]] = defaultdict(list)  # when each was killed

    def watch(self) -> RunResult:
        """Waits for the end of the run.

        Raises:
            HubLost: the hub or the fork server is gone.
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
                wait([process.sentinel for process in self._alive()], timeout=POLL_S)
        except HUB_GONE:
            raise HubLost from None
        return RunResult.interrupted(self._caught[0])

    def _ended(self) -> bool:
        """Looks once at everything; whether all roles have ended and the run is finished."""
        status = self._monitor.status()
        self._display.show(status)
        self._cores.look(self._monitor)
        if status.failure is not None:
            raise RunFailed(status.failure)
        if status.interrupted and not self._caught:
            self._caught.append("SIGINT")
            return False
        for slot, process in list(self._processes.items()):
            has_failed = not process.is_alive() and process.exitcode != 0
            if has_failed and not self._caught and not status.finished:
                self._restart(slot, process)
        self._find_hung()
        if self._alive():
            return False
        if self._monitor.status().finished:
            return True
        if any(process.exitcode != 0 for process in self._processes.values()):  # killed since it was looked at
            return False
        raise RunFailed("every role ended before the budget was bought")

    def _alive(self) -> list[BaseProcess]:
        return [process for process in self._processes.values() if process.is_alive()]

    def _restart(self, slot: Slot, process: BaseProcess) -> None:
        """Fills the slot of a process that died.

        Raises:
            HubLost: it died with the fork server.
            RunFailed: it may not be restarted.
            UserError: it died of what only the user can mend.
        """
        if process.exitcode == fork_server.GONE:
            raise HubLost
        if process.exitcode == WITHOUT_HUB:
            self._monitor.status()  # raises when the hub is gone for this process too
        cause = self._cause(slot, process)
        if process.exitcode == USER_ERROR:
            raise UserError(cause)
        limit = self._settings.restart_limit
        if self._settings.on_failure == "stop" or process.exitcode == PERMANENT:
            raise RunFailed(cause)
        if self._restarts[slot.name] >= limit:
            raise RunFailed(f"{cause}; it was restarted {limit} times (restart_limit)")
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

    def _cause(self, slot: Slot, process: BaseProcess) -> str:
        code = process.exitcode or 0
        if slot.name in self._hung:
            self._hung.discard(slot.name)
            stack = "its stack is in log.txt, if it could still run"
            return f"{slot.name}: made no progress for {self._settings.hung_after_s:g} s ({stack})"
        for reported in reversed(self._monitor.take_failures()):
            if reported.startswith(f"{slot.name}: "):
                return reported
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"{slot.name}: was killed by {signal.Signals(-code).name}{hint}"
        return f"{slot.name}: ended with exit code {code}; see log.txt"

    def _find_hung(self) -> None:
        """Looks, now and then, at the heartbeats, and whether the fork server still forks."""
        now, hung_after_s = self._clock.now(), self._settings.hung_after_s
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._heartbeats.note(self._monitor.heartbeats())
            for slot, process in self._processes.items():
                is_hung = process.is_alive() and self._heartbeats.silent_s(slot.name) > hung_after_s
                if is_hung and not self._caught:
                    self._kill(slot, process)
        if now - self._probed_at >= hung_after_s / PROBES:
            self._probed_at = now
            self._launcher.probe(hung_after_s * (1 - 1 / PROBES))

    def _kill(self, slot: Slot, process: BaseProcess) -> None:
        """Kills a hung process after a dump of its stack, and once more if it has not ended by then.

        Raises:
            RunFailed: it survives that: it is stuck in a driver.
        """
        kills, now = self._kills[process], self._clock.now()
        if kills and now - kills[-1] < KILL_S:
            return
        if len(kills) == 2:
            self._launcher.probe(self._settings.hung_after_s)  # a fork server that hangs reports no end
            raise RunFailed(f"{slot.name}: hangs and cannot be killed (a driver that does not respond?)")
        kills.append(now)
        self._hung.add(slot.name)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGUSR1)
        wait([process.sentinel], timeout=DUMP_S)
        process.kill()
        wait([process.sentinel], timeout=DUMP_S)

    def end(self) -> None:
        """Requests shutdown, then ends all processes that go on."""
        grace_s = GRACE_S
        try:
            self._monitor.stop()
        except HUB_GONE:
            grace_s = 0.0  # no hub takes what they do
        end_processes(self._processes.values(), grace_s, self._caught)
