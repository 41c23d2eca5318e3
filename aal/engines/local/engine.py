"""The roles as processes of this machine, the hub in a Manager process that they all call."""

import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.managers import RemoteError
from multiprocessing.process import BaseProcess
from typing import Any

from aal.config.errors import RunFailed, UserError
from aal.engines.base import Display, Engine, Plan, RunResult
from aal.engines.local.hub_process import HubManager
from aal.engines.local.processes import (
    HUB_GONE,
    Slot,
    end_with_parent,
    fork_context,
    run_slot,
    without_main_module,
)
from aal.engines.local.supervisor import HubLost, Supervisor
from aal.storage.resume_state import read_resume_state

log = logging.getLogger("aal")


class LocalEngine(Engine):
    """Runs the roles as processes of this machine; a hub that dies is restarted from `run.db`."""

    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        settings, restarts = plan.settings, 0
        while True:
            try:
                return self._attempt(plan, display, caught)
            except HUB_GONE:
                if caught:
                    return RunResult.interrupted(caught[0])
                raise RunFailed("the processes could not be started") from None
            except HubLost:
                if caught:
                    return RunResult.interrupted(caught[0])
                cause = "hub: its process was killed"
                if settings.on_failure == "stop" or restarts >= settings.restart_limit:
                    raise RunFailed(cause) from None
                restarts += 1
                display.note(f"{cause}; going on from run.db ({restarts} of {settings.restart_limit})")
                log.warning("%s; going on from run.db", cause)
                plan = dataclasses.replace(plan, resume=read_resume_state(plan.run / "run.db"))

    def _attempt(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        """Runs until the end, or until the hub is lost."""
        context = fork_context()
        origin = time.monotonic() - (plan.resume.seconds if plan.resume else 0.0)
        with _manager(context) as manager:
            try:
                monitor = manager.open(plan, origin)
            except RemoteError as error:  # the hub's traceback as text; its last line is the reason
                raise RunFailed(str(error).strip("- \n").splitlines()[-1].partition(": ")[2]) from None
            heart = manager.heart()
            hubs = {role.name: getattr(manager, role.name)() for role in plan.roles}

            def process_of(slot: Slot) -> BaseProcess:
                args = (slot, plan.run, plan.settings, hubs[slot.role.name], heart, origin)
                return context.Process(target=run_slot, args=args, name=slot.name, daemon=True)

            slots = [Slot(role, index) for role in plan.roles for index in range(role.slots)]
            supervisor = Supervisor(plan.settings, slots, monitor, process_of, display, caught)
            try:
                result = supervisor.watch()
            except (RunFailed, UserError) as error:
                result = RunResult.failed(error)
            finally:
                supervisor.end()
            with contextlib.suppress(*HUB_GONE):
                if unwritten := monitor.close(result.ended):
                    return RunResult.failed(RunFailed(unwritten))
        return result


@contextlib.contextmanager
def _manager(context: ForkServerContext) -> Iterator[Any]:
    manager = HubManager(ctx=context)
    with without_main_module():  # it ignores a signal to the whole group, to write what is left
        manager.start(end_with_parent, (signal.SIGTERM,))
    try:
        yield manager
    finally:
        manager.shutdown()
