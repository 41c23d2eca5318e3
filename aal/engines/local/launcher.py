"""How the processes of one attempt to run are started: within bounds, and each with a hub proxy of its own."""

import os
from collections import Counter
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from aal.engines.base import Plan
from aal.engines.local.fork_server import FORK_SERVER, starting
from aal.engines.local.liveness import START_S, Peer, Watchdog
from aal.engines.local.processes import Slot, run_slot


class Launcher:
    """Starts processes that fill slots.

    Args:
        context: that they are started with.
        plan: of the run.
        manager: of the hub's process.
        hub: this process.
        origin: of the run's clock.
        watchdog: bounds how long a start may take.
        incarnations: how many processes have filled each slot so far, by its name; goes on from one hub to the next.
    """

    def __init__(
        self,
        context: ForkServerContext,
        plan: Plan,
        manager: Any,
        hub: Peer,
        origin: float,
        watchdog: Watchdog,
        incarnations: Counter[str],
    ) -> None:
        self._context = context
        self._plan = plan
        self._manager = manager
        self._hub = hub
        self._origin = origin
        self._watchdog = watchdog
        self._incarnations = incarnations
        self._admitted: dict[Slot, tuple[int, Any]] = {}
        self._proxies: list[Any] = []  # the hub drops what main does not refer to any more
        self._limit_s = START_S + plan.settings.hung_after_s

    def admit(self, slot: Slot) -> None:
        """Makes the next process of a slot the only one that the hub listens to; nothing of a former one goes on."""
        incarnation = self._incarnations[slot.name]
        self._incarnations[slot.name] += 1
        with self._watchdog.limit(self._limit_s, self._hub, FORK_SERVER):
            members = list(slot.role.members(slot.index))
            proxy = getattr(self._manager, slot.role.sees)(slot.name, incarnation, members)
        self._proxies.append(proxy)
        self._admitted[slot] = incarnation, proxy

    def start(self, slot: Slot) -> BaseProcess:
        """Starts the process of a slot that was admitted last."""
        incarnation, proxy = self._admitted[slot]
        args = (slot, incarnation, self._plan.run, self._plan.settings, proxy, self._origin)
        process = self._context.Process(target=run_slot, args=args, name=slot.name, daemon=True)
        self._start(process, self._limit_s)
        return process

    def probe(self, limit_s: float) -> None:
        """Starts a process that ends at once; a fork server that does not fork it in time is killed."""
        self._start(self._context.Process(target=os.getpid, name="probe", daemon=True), limit_s)

    def _start(self, process: BaseProcess, limit_s: float) -> None:
        with self._watchdog.limit(limit_s, FORK_SERVER), starting():
            process.start()
