"""Starts the processes of a run, watches them, restarts them when they die, and ends them."""

import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from aal.config.errors import RunFailed, UserError
from aal.config.settings import Settings
from aal.coordination.interfaces import Monitor
from aal.engines.base import Display, RunResult, RunStatus
from aal.engines.local.processes import HUB_GONE, PERMANENT, USER_ERROR, WITHOUT_HUB, Slot, without_main_module

FORK_SERVER_GONE = 255  # the exit code that multiprocessing reports when the fork server died; the child may live
POLL_S = 0.2
GRACE_S = 3.0  # between the shutdown request and SIGTERM
DUMP_S = 0.5  # for a hung process to write its stack

log = logging.getLogger("aal")


class HubLost(Exception):  # noqa: N818 - a state of the run, which may go on
    """The hub's process is gone; what it knew is in `run.db`."""


class Supervisor:
    """Keeps every slot filled until the run is over.

    Args:
        settings: of the run.
        slots: to fill.
        monitor: proxy of the hub's monitor.
        process_of: makes the process of a slot, not started yet.
        display: where to show how far the run is.
        caught: names of the signals that came, filled by a handler.
    """

    def __init__(
        self,
        settings: Settings,
        slots: list[Slot],
        monitor: Monitor,
        process_of: Callable[[Slot], BaseProcess],
        display: Display,
        caught: list[str],
    ) -> None:
        self._settings = settings
        self._monitor = monitor
        self._process_of = process_of
        self._display = display
        self._caught = caught
        self._restarts: Counter[str] = Counter()
        self._hung: set[str] = set()
        self._looked_at = time.monotonic()
        self._processes = {slot: process_of(slot) for slot in slots}

    def watch(self) -> RunResult:
        """Waits for the end of the run.

        Raises:
            HubLost: the hub's process is gone.
            RunFailed: a process failed for good, or the record cannot be written.
            UserError: a role met what only the user can mend.
        """
        for slot in self._processes:
            self._start(slot)
        while not self._caught:
            try:
                if self._ended():
                    return RunResult(RunStatus.FINISHED)
            except HUB_GONE:
                raise HubLost from None
            running = [process.sentinel for process in self._processes.values() if process.is_alive()]
            wait(running, timeout=POLL_S)
        return RunResult.interrupted(self._caught[0])

    def _ended(self) -> bool:
        """Looks once at everything; whether all roles have ended and the run is finished."""
        status = self._monitor.status()
        self._display.show(status)
        if status.failure is not None:
            raise RunFailed(status.failure)
        for slot, process in list(self._processes.items()):
            has_failed = not process.is_alive() and process.exitcode != 0
            if has_failed and not self._caught and not status.finished:
                self._restart(slot, process)
        self._kill_hung()
        if any(process.is_alive() for process in self._processes.values()):
            return False
        if not self._monitor.status().finished:
            raise RunFailed("every role ended before the budget was bought")
        return True

    def _restart(self, slot: Slot, process: BaseProcess) -> None:
        """Fills the slot of a process that died.

        Raises:
            RunFailed: it may not be restarted.
            UserError: it died of what only the user can mend.
        """
        if process.exitcode == WITHOUT_HUB:
            self._monitor.status()  # raises when the hub is gone for this process too
        cause = self._cause(slot, process)
        if process.exitcode == USER_ERROR:
            raise UserError(cause)
        if process.exitcode == FORK_SERVER_GONE and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        limit = self._settings.restart_limit
        if self._settings.on_failure == "stop" or process.exitcode == PERMANENT:
            raise RunFailed(cause)
        if self._restarts[slot.name] >= limit:
            raise RunFailed(f"{cause}; it was restarted {limit} times (restart_limit)")
        self._restarts[slot.name] += 1
        self._display.note(f"{cause}; restarting it ({self._restarts[slot.name]} of {limit})")
        log.warning("%s; restarting it", cause)
        for member in slot.role.members(slot.index):
            self._monitor.release(slot.role.name, member)
        self._processes[slot] = self._process_of(slot)
        self._start(slot)

    def _start(self, slot: Slot) -> None:
        with contextlib.suppress(*HUB_GONE):  # the next look at its status reports that
            self._monitor.expect(slot.name)
        with without_main_module():
            self._processes[slot].start()

    def _cause(self, slot: Slot, process: BaseProcess) -> str:
        code = process.exitcode or 0
        if slot.name in self._hung:
            self._hung.discard(slot.name)
            stack = "its stack is in log.txt, if it could still run"
            return f"{slot.name}: made no progress for {self._settings.hung_after_s:g} s ({stack})"
        for reported in reversed(self._monitor.take_failures()):
            if reported.startswith(f"{slot.name}: "):
                return reported
        if code == FORK_SERVER_GONE:
            return f"{slot.name}: the fork server it came from is gone"
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"{slot.name}: was killed by {signal.Signals(-code).name}{hint}"
        return f"{slot.name}: ended with exit code {code}; see log.txt"

    def _kill_hung(self) -> None:
        """Kills, once a second, processes without a heartbeat for too long, after a dump of their stacks."""
        if time.monotonic() - self._looked_at < 1.0:
            return
        self._looked_at = time.monotonic()
        ages = self._monitor.seconds_since_heartbeat()
        for slot, process in self._processes.items():
            if process.is_alive() and ages.get(slot.name, 0.0) > self._settings.hung_after_s:
                assert process.pid is not None
                self._hung.add(slot.name)
                os.kill(process.pid, signal.SIGUSR1)
                wait([process.sentinel], timeout=DUMP_S)
                process.kill()
                wait([process.sentinel], timeout=DUMP_S)

    def end(self) -> None:
        """Ends all processes: requests shutdown, then terminates, then kills; at once on a second signal."""
        with contextlib.suppress(*HUB_GONE):
            self._monitor.stop()
        for act, seconds in ((None, GRACE_S), (BaseProcess.terminate, 1.0), (BaseProcess.kill, 1.0)):
            alive = [process for process in self._processes.values() if process.is_alive()]
            if act is not None:
                for process in alive:
                    act(process)
            deadline = time.monotonic() + seconds
            while alive and time.monotonic() < deadline and len(self._caught) < 2:
                wait([process.sentinel for process in alive], timeout=0.05)
                alive = [process for process in alive if process.is_alive()]
