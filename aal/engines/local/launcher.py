"""How the processes of one attempt to run are started: within bounds, and each with a hub proxy of its own."""

import os
from collections.abc import Collection, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from aal.coordination.fence import Incarnations
from aal.coordination.interfaces import Monitor
from aal.engines.base import Plan
from aal.engines.heartbeats import START_S, AwakeClock
from aal.engines.local.core_watch import CoreWatch
from aal.engines.local.fork_server import FORK_SERVER, starting
from aal.engines.local.liveness import Peer, Watchdog
from aal.engines.local.processes import LocalProcess, run_slot
from aal.engines.local.shutdown import end_processes
from aal.engines.processes import Slot

PROBES = 4  # of the fork server in `hung_after_s`


class LocalLauncher:
    """Starts processes that fill slots; implements `Launcher` of `aal.engines.supervisor`.

    Args:
        context: that they are started with.
        plan: of the run.
        manager: of the hub's process.
        hub: this process.
        origin: of the run's clock.
        watchdog: bounds how long a start may take.
        cores: measures what other programs leave of the machine.
        monitor: is given that.
    """

    def __init__(
        self,
        context: ForkServerContext,
        plan: Plan,
        manager: Any,
        hub: Peer,
        origin: float,
        watchdog: Watchdog,
        cores: CoreWatch,
        monitor: Monitor,
    ) -> None:
        self._context = context
        self._plan = plan
        self._manager = manager
        self._hub = hub
        self._origin = origin
        self._watchdog = watchdog
        self._incarnations = Incarnations(plan.epoch)
        self._admitted: dict[Slot, tuple[int, Any]] = {}
        self._proxies: list[Any] = []  # the hub drops what main does not refer to any more
        self._cores = cores
        self._monitor = monitor
        self._clock, self._probed_at = AwakeClock(), 0.0
        self._hung_after_s = plan.settings.hung_after_s
        self._limit_s = START_S + self._hung_after_s

    def admit(self, slot: Slot) -> None:
        """Makes the next process of a slot the only one that the hub listens to; nothing of a former one goes on."""
        incarnation = self._incarnations.next(slot.name)
        with self._watchdog.limit(self._limit_s, self._hub, FORK_SERVER):
            members = list(slot.role.members(slot.index))
            proxy = getattr(self._manager, slot.role.sees)(slot.name, incarnation, members)
        self._proxies.append(proxy)
        self._admitted[slot] = incarnation, proxy

    def start(self, slot: Slot) -> LocalProcess:
        """Starts the process of a slot that was admitted last."""
        incarnation, proxy = self._admitted[slot]
        args = (slot, incarnation, self._plan.run, self._plan.settings, proxy, self._origin)
        process = self._context.Process(target=run_slot, args=args, name=slot.name, daemon=True)
        self._start(process, self._limit_s)
        return LocalProcess(process)

    def look(self) -> None:
        """Passes on what the run may have of the cores; looks, now and then, whether the fork server still forks."""
        self._cores.look(self._monitor)
        now = self._clock.now()
        if now - self._probed_at >= self._hung_after_s / PROBES:
            self._probed_at = now
            self.probe(self._hung_after_s * (1 - 1 / PROBES))

    def check(self) -> None:
        """Checks whether the fork server reports the ends of processes; one that hangs is killed."""
        self.probe(self._hung_after_s)

    def wait(self, processes: Sequence[LocalProcess], seconds: float) -> None:
        """Waits until one of some processes has ended, at most for so long."""
        wait([one.process.sentinel for one in processes], timeout=seconds)

    def end(self, processes: Collection[LocalProcess], grace_s: float, caught: Sequence[str]) -> None:
        """Waits for the end of processes, then terminates, then kills them; at once after a second signal."""
        end_processes([one.process for one in processes], grace_s, caught)

    def probe(self, limit_s: float) -> None:
        """Starts a process that ends at once; a fork server that does not fork it in time is killed."""
        self._start(self._context.Process(target=os.getpid, name="probe", daemon=True), limit_s)

    def _start(self, process: BaseProcess, limit_s: float) -> None:
        with self._watchdog.limit(limit_s, FORK_SERVER), starting():
            process.start()
