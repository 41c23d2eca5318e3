"""Starts the processes of a run, watches them, starts them again when they die, and ends them."""

import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.reporting.progress import Progress

HUB_GONE = (EOFError, BrokenPipeError, ConnectionError)
USERS_MISTAKE = 2  # exit code of a role that met one
FOR_GOOD = 4  # exit code of a role that would fail again
WITHOUT_HUB = 3  # exit code of a role whose hub is gone
FORKSERVER_GONE = 255  # what multiprocessing says of a child when the fork server died, the child itself may live
POLL_S = 0.2
GRACE_S = 3.0  # after the stop word, before SIGTERM
DUMP_S = 0.5  # for a hung process to write its stack

log = logging.getLogger("aal")


class HubLost(Exception):  # noqa: N818 - a state of the run, which may go on
    """The hub's process is gone; what it knew is in `run.db`."""


@dataclass(frozen=True)
class Role:
    """A kind of process.

    Attributes:
        name: `server`, `worker` or `annotators`.
        entry: `module:function` of a coroutine function (index, run, settings, hub, clock, *args), imported in the
            process itself, so that this one loads no torch.
        number: how many of them.
        args: what else the function takes.
    """

    name: str
    entry: str
    number: int
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Place:
    """One process of a role; whoever fills it, the name stays."""

    role: Role
    index: int

    @property
    def name(self) -> str:
        """As in the log, and as the hub knows it."""
        return "annotators" if self.role.name == "annotators" else f"{self.role.name}-{self.index}"


class Supervisor:
    """Keeps every place filled until the run is over.

    Args:
        settings: of the run.
        roles: what to start.
        hub: the proxy of the hub.
        start: makes the process of a place, not started yet.
        progress: where to show how far the run is.
        caught: names of the signals that came, filled by a handler.
    """

    def __init__(
        self,
        settings: Settings,
        roles: list[Role],
        hub: Any,
        start: Callable[[Place], BaseProcess],
        progress: Progress,
        caught: list[str],
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._start = start
        self._progress = progress
        self._caught = caught
        self._restarts: Counter[str] = Counter()
        self._hung: set[str] = set()
        self._looked_at = time.monotonic()
        self._processes = {
            Place(role, index): self._start(Place(role, index)) for role in roles for index in range(role.number)
        }

    def watch(self) -> str:
        """Waits for the end of the run.

        Returns:
            `finished`, the name of a signal, or `failed: why`.

        Raises:
            HubLost: the hub's process is gone.
            UserError: a role met what only the user can mend.
        """
        for process in self._processes.values():
            process.start()
        while not self._caught:
            try:
                status = self._hub.status()
                self._progress.show(status)
                if status.failure is not None:
                    return f"failed: {status.failure}"
                for place, process in list(self._processes.items()):
                    fallen = not process.is_alive() and process.exitcode != 0
                    if fallen and not self._caught and (end := self._fallen(place, process)) is not None:
                        return end
                self._end_hung()
                running = [process for process in self._processes.values() if process.is_alive()]
                if not running:
                    status = self._hub.status()
                    return "finished" if status.finished else "failed: every role ended before the budget was bought"
            except HUB_GONE:
                raise HubLost from None
            wait([process.sentinel for process in running], timeout=POLL_S)
        return self._caught[0]

    def _fallen(self, place: Place, process: BaseProcess) -> str | None:
        """Fills the place of a process that died; says how the run ends where it may not."""
        if process.exitcode == WITHOUT_HUB:
            self._hub.status()  # raises when the hub is gone for us too
        cause = self._cause(place, process)
        if process.exitcode == USERS_MISTAKE:
            raise UserError(cause)
        if process.exitcode == FORKSERVER_GONE and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        limit = self._settings.restart_limit
        if self._settings.on_failure == "stop" or process.exitcode == FOR_GOOD:
            return f"failed: {cause}"
        if self._restarts[place.name] >= limit:
            return f"failed: {cause}; it was restarted {limit} times (restart_limit)"
        self._restarts[place.name] += 1
        self._progress.note(f"{cause}; restarting it ({self._restarts[place.name]} of {limit})")
        log.warning("%s; restarting it", cause)
        self._hub.release(place.role.name, place.index)
        self._processes[place] = self._start(place)
        self._processes[place].start()
        return None

    def _cause(self, place: Place, process: BaseProcess) -> str:
        code = process.exitcode or 0
        if place.name in self._hung:
            self._hung.discard(place.name)
            stack = "its stack is in log.txt, if it could still run"
            return f"{place.name}: made no progress for {self._settings.hung_after_s:g} s ({stack})"
        for said in self._hub.failures():
            if said.startswith(f"{place.name}: "):
                return str(said)
        if code == FORKSERVER_GONE:
            return f"{place.name}: the fork server it came from is gone"
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"{place.name}: was killed by {signal.Signals(-code).name}{hint}"
        return f"{place.name}: ended with exit code {code}; see log.txt"

    def _end_hung(self) -> None:
        """Kills, once a second, who lives but has given no sign of it for too long, after a dump of its stack."""
        if time.monotonic() - self._looked_at < 1.0:
            return
        self._looked_at = time.monotonic()
        silent = self._hub.silent()
        for place, process in self._processes.items():
            if process.is_alive() and silent.get(place.name, 0.0) > self._settings.hung_after_s:
                assert process.pid is not None
                self._hung.add(place.name)
                os.kill(process.pid, signal.SIGUSR1)
                wait([process.sentinel], timeout=DUMP_S)
                process.kill()
                wait([process.sentinel], timeout=DUMP_S)

    def end(self) -> None:
        """Ends all processes: first they are asked, then told, then killed; at once on a second signal."""
        with contextlib.suppress(*HUB_GONE):
            self._hub.stop()
        for act, seconds in ((None, GRACE_S), ("terminate", 1.0), ("kill", 1.0)):
            alive = [process for process in self._processes.values() if process.is_alive()]
            if act is not None:
                for process in alive:
                    getattr(process, act)()
            deadline = time.monotonic() + seconds
            while alive and time.monotonic() < deadline and len(self._caught) < 2:
                wait([process.sentinel for process in alive], timeout=0.05)
                alive = [process for process in alive if process.is_alive()]
