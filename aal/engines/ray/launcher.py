"""How processes of roles are started as actors, and how they end."""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from aal.coordination.fence import Incarnations
from aal.engines.base import Display, Role
from aal.engines.processes import Slot
from aal.engines.ray.cluster import Cluster, ended
from aal.engines.ray.hub_client import RemoteHub, is_of_machine, why_lost
from aal.engines.ray.role_host import RoleHost
from aal.engines.ray.room import Ask
from aal.engines.ray.workplace import Assignment

KILLED = -9  # the exit code of what did not end by itself
KILL_S = 2.0  # for killed actors to end
NOTE_S = 20.0  # that a process has not begun before it is shown

log = logging.getLogger("aal")


class RayProcess:
    """An actor that fills a slot; implements `Process` of `aal.engines.supervisor`.

    Args:
        slot: that it fills.
        actor: of a `RoleHost`.
        begun: the call that returns when it has a machine.
        running: the call that returns its exit code.
    """

    def __init__(self, slot: Slot, actor: Any, begun: Any, running: Any) -> None:
        self.slot = slot
        self.running = running
        self.since = time.monotonic()
        self.is_shown = False
        self._actor = actor
        self._begun = begun
        self._ended: tuple[int, str] | None = None

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it is alive."""
        if self._ended is None and ended([self.running], 0.0):
            self._ended = self._outcome()
            self._end()
        return None if self._ended is None else self._ended[0]

    @property
    def cause(self) -> str:
        """What ended it."""
        return "" if self._ended is None else self._ended[1]

    @property
    def has_begun(self) -> bool:
        """Whether it has had a machine that was there; one that it was lost with before does not count."""
        if not ended([self._begun], 0.0):
            return False
        try:
            ray.get(self._begun)
        except RayError as error:
            return not is_of_machine(error)
        return True

    def kill(self) -> None:
        """Kills it; one on a machine that does not answer counts as ended."""
        self._end()
        if not ended([self.running], KILL_S):
            self._ended = KILLED, "its machine does not answer"

    def _outcome(self) -> tuple[int, str]:
        try:
            code: int = ray.get(self.running)
            return code, f"ended with exit code {code}; see log.txt"
        except RayError as error:
            return KILLED, why_lost(error)

    def _end(self) -> None:
        with contextlib.suppress(RayError):
            ray.kill(self._actor)


class RayLauncher:
    """Starts actors that fill slots; implements `Launcher` of `aal.engines.supervisor`.

    Args:
        cluster: where.
        hub: of the run.
        incarnations: of the processes under this hub.
        ask_of: what the next process of a role asks, beside what each of the others was given.
        assigned: makes what an actor is given, from its slot, its incarnation and what it asked.
        display: where a process is shown that waits for a machine.
    """

    def __init__(
        self,
        cluster: Cluster,
        hub: RemoteHub,
        incarnations: Incarnations,
        ask_of: Callable[[Role, Sequence[Ask]], Ask],
        assigned: Callable[[Slot, int, Ask], Assignment],
        display: Display,
    ) -> None:
        self._cluster = cluster
        self._hub = hub
        self._incarnations = incarnations
        self._ask_of = ask_of
        self._assigned = assigned
        self._display = display
        self._given: dict[str, tuple[RayProcess, Ask]] = {}  # to the newest process of each slot
        self._waiting: list[tuple[RayProcess, Ask]] = []

    def admit(self, slot: Slot) -> None:
        """Makes the next process of a slot the only one that the hub listens to; nothing of a former one goes on."""
        incarnation, members = self._incarnations.next(slot.name), list(slot.role.members(slot.index))
        admitted = self._hub.host.admit.remote(slot.role.sees, slot.name, incarnation, members)
        self._hub.asked(admitted)

    def start(self, slot: Slot) -> RayProcess:
        """Starts an actor for a slot that was admitted last."""
        others = [(one.running, ask) for name, (one, ask) in self._given.items() if name != slot.name]
        over = ended([running for running, _ in others], 0.0)  # one call, for there may be a thousand
        ask = self._ask_of(slot.role, [ask for running, ask in others if running not in over])
        stays = slot.role.stays and not ask.pins
        actor = ray.remote(RoleHost).options(
            num_cpus=ask.cpus,
            num_gpus=ask.gpus,
            resources=dict.fromkeys(ask.pins, ask.resources[ask.pins[0]]) if ask.pins else None,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=self._cluster.on_this_machine() if stays else "SPREAD",
        )
        made = actor.remote()
        begun = made.begun.remote()
        running = made.run.remote(self._assigned(slot, self._incarnations.newest(slot.name), ask))
        process = RayProcess(slot, made, begun, running)
        self._given[slot.name] = process, ask
        self._waiting.append((process, ask))
        return process

    def look(self) -> None:
        """Shows which processes have waited for a machine for long, and whether the head is there."""
        self._cluster.check()
        self._waiting = [(one, ask) for one, ask in self._waiting if one.exitcode is None and not one.has_begun]
        for process, ask in self._waiting:
            if ask.resources and not process.is_shown and time.monotonic() - process.since > NOTE_S:
                process.is_shown = True
                text = not_started(process.slot.name, ask)
                self._display.note(text)
                log.info(text)

    def check(self) -> None:
        """Ray reports the ends of actors, or that their machines do not answer."""

    def wait(self, processes: Sequence[RayProcess], seconds: float) -> None:
        """Waits until one of some processes has ended, at most for so long."""
        if processes:
            ray.wait([one.running for one in processes], timeout=seconds)
        else:
            time.sleep(seconds)

    def end(self, processes: Collection[RayProcess], grace_s: float, caught: Sequence[str]) -> None:
        """Waits for the end of processes, then kills their actors; at once after a second signal."""
        deadline = time.monotonic() + grace_s
        alive = [one for one in processes if one.exitcode is None]
        waiting = [one for one in alive if not one.has_begun]
        for one in waiting:
            one.kill()
        while (alive := [one for one in alive if one.exitcode is None]) and time.monotonic() < deadline:
            if len(caught) > 1:
                break
            self.wait(alive, 0.1)
        for one in alive:
            one._end()
        ended([one.running for one in alive], KILL_S)


def not_started(name: str, ask: Ask) -> str:
    """Returns what is shown of a process that waits for a machine."""
    return f"{name}: not started yet; it needs a machine with {ask} free"
