"""The roles as processes of this machine, the hub in a Manager process that they all call."""

import contextlib
import os
import signal
import time
from multiprocessing.managers import RemoteError
from typing import Any

from aal.config.errors import RunFailed
from aal.config.machine import allow_open_files
from aal.engines.attempts import run_to_its_end
from aal.engines.base import Display, Engine, Plan, RunResult
from aal.engines.heartbeats import START_S
from aal.engines.local import fork_server
from aal.engines.local.core_watch import CoreWatch
from aal.engines.local.fork_server import FORK_SERVER, fork_context, starting
from aal.engines.local.hub_process import HubManager
from aal.engines.local.launcher import LocalLauncher
from aal.engines.local.liveness import Peer, Watchdog
from aal.engines.local.processes import end_with_parent
from aal.engines.processes import HUB_GONE, HubLost, Slot
from aal.engines.resources import open_files
from aal.engines.supervisor import Supervisor, supervise

SPARE_FILES = 256  # that a program may hold open which starts runs from Python


class LocalEngine(Engine):
    """Runs the roles as processes of this machine; replaces, from `run.db`, a hub or fork server that is lost."""

    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        cores = CoreWatch(display)
        allow_open_files(SPARE_FILES + open_files(1 + sum(role.slots for role in plan.roles)))
        with Watchdog(caught) as watchdog:

            def attempt(plan: Plan) -> RunResult:
                return _Attempt(plan, display, caught, watchdog, cores).run()

            return run_to_its_end(plan, display, caught, attempt)


class _Attempt:
    """A hub and the processes around it, until the end of the run or of the hub."""

    def __init__(
        self,
        plan: Plan,
        display: Display,
        caught: list[str],
        watchdog: Watchdog,
        cores: CoreWatch,
    ) -> None:
        self._plan = plan
        self._display = display
        self._caught = caught
        self._watchdog = watchdog
        self._cores = cores
        self._hung_after_s = plan.settings.hung_after_s
        self._context = fork_context()
        self._manager: Any = HubManager(ctx=self._context)
        self._hub = Peer("hub", self._kill_hub)

    def run(self) -> RunResult:
        """Runs until the end.

        Raises:
            HubLost: the hub or the fork server died or hung; the message says which.
        """
        try:
            try:
                # It ignores a signal to the whole group, to write what is left.
                with self._watchdog.limit(START_S + self._hung_after_s, FORK_SERVER), starting():
                    self._manager.start(end_with_parent, (signal.SIGTERM,))
                return self._supervised()
            finally:
                self._end_hub()
        except (HubLost, *HUB_GONE):
            raise HubLost(self._loss()) from None
        except OSError as error:
            raise RunFailed(f"a process could not be started: {error.strerror or error}") from None

    def _supervised(self) -> RunResult:
        plan = self._plan
        origin = time.monotonic() - (plan.resume.seconds if plan.resume else 0.0)
        with self._watchdog.limit(START_S + self._hung_after_s, self._hub, FORK_SERVER):
            try:
                opened = self._manager.open(plan, origin)
            except RemoteError as error:  # the hub's traceback as text; its last line is the reason
                raise RunFailed(str(error).strip("- \n").splitlines()[-1].partition(": ")[2]) from None
        monitor = self._watchdog.bounded(opened, self._hung_after_s, self._hub, FORK_SERVER)
        self._cores.share(monitor)
        launcher = LocalLauncher(
            self._context,
            plan,
            self._manager,
            self._hub,
            origin,
            self._watchdog,
            self._cores,
            monitor,
        )
        slots = [Slot(role, index) for role in plan.roles for index in range(role.slots)]
        supervisor = Supervisor(plan.settings, slots, monitor, launcher, self._display, self._caught)
        return supervise(supervisor, monitor)

    def _end_hub(self) -> None:
        """Ends the process of the hub; whatever state it is in, it does not live on."""
        if hasattr(self._manager, "shutdown"):  # it was started
            with self._watchdog.limit(self._hung_after_s, self._hub, FORK_SERVER), contextlib.suppress(*HUB_GONE):
                self._manager.shutdown()
        self._kill_hub()

    def _kill_hub(self) -> None:
        process = self._manager.process
        if process is not None and process.pid is not None and process.exitcode in (None, fork_server.GONE):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _loss(self) -> str:
        """Returns which process was lost, and why."""
        if killed := self._watchdog.take_killed():
            return killed
        process = self._manager.process
        lost_all = process is None or process.pid is None or process.exitcode == fork_server.GONE
        return f"{'fork server' if lost_all else 'hub'}: its process was killed"
