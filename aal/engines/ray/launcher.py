"""How processes of roles are started as actors, and how they end."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ray

from aal.coordination.fence import Incarnations
from aal.engines.base import Display
from aal.engines.processes import Slot
from aal.engines.ray.cluster import Cluster, ended
from aal.engines.ray.files_actor import FilesWatch
from aal.engines.ray.growing import Growing
from aal.engines.ray.hub_client import RemoteHub
from aal.engines.ray.process import KILL_S, RayProcess
from aal.engines.ray.role_host import RoleHost
from aal.engines.ray.room import Ask
from aal.engines.ray.workplace import Assignment

NOTE_S = 20.0  # that a process has not begun before it is shown

log = logging.getLogger("aal")


class RayLauncher:
    """Starts actors that fill slots; implements `Launcher` of `aal.engines.supervisor`.

    Args:
        cluster: where.
        hub: of the run.
        incarnations: of the processes under this hub.
        growing: says what the next process of a role asks, and which ones move to machines that join.
        assigned: makes what an actor is given, from its slot, its incarnation and what it asked.
        files: restarts the actor of the files when it hangs.
        display: where a process is shown that waits for a machine.
    """

    def __init__(
        self,
        cluster: Cluster,
        hub: RemoteHub,
        incarnations: Incarnations,
        growing: Growing,
        assigned: Callable[[Slot, int, Ask], Assignment],
        files: FilesWatch,
        display: Display,
    ) -> None:
        self._cluster = cluster
        self._hub = hub
        self._incarnations = incarnations
        self._growing = growing
        self._assigned = assigned
        self._files = files
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
        machines = self._cluster.machines()
        others = [(one, ask) for one, ask in self._alive() if one.slot is not slot]
        place: Any
        if (move := self._growing.move_of(slot, others)) is not None:
            ask, place = move.ask, self._cluster.on_machine(move.machine)
        else:
            held = [*(ask for _, ask in others), *self._growing.kept()]
            had = [self._given[slot.name]] if slot.name in self._given and self._given[slot.name][0].has_begun else []
            ask = self._growing.ask_now(machines, [*others, *had])(slot.role, held)
            place = self._cluster.on_this_machine() if slot.role.stays and not ask.pins else "SPREAD"
        actor = ray.remote(RoleHost).options(
            num_cpus=ask.cpus,
            num_gpus=ask.gpus,
            resources=dict.fromkeys(ask.pins, ask.resources[ask.pins[0]]) if ask.pins else None,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=place,
        )
        made = actor.remote()
        begun = made.begun.remote()
        running = made.run.remote(self._assigned(slot, self._incarnations.newest(slot.name), ask))
        process = RayProcess(slot, made, begun, running, "" if move is None else move.machine)
        self._given[slot.name] = process, ask
        self._waiting.append((process, ask))
        return process

    def look(self) -> None:
        """Shows which processes have waited for a machine for long, and whether the head and the files are there."""
        self._cluster.check()
        self._files.look()
        self._waiting = [(one, ask) for one, ask in self._waiting if one.exitcode is None and not one.has_begun]
        for process, ask in self._waiting:
            if ask.resources and not process.is_shown and time.monotonic() - process.since > NOTE_S:
                process.is_shown = True
                text = not_started(process.slot.name, ask)
                self._display.note(text)
                log.info(text)
        self._growing.look(self._alive)

    def _alive(self) -> list[tuple[RayProcess, Ask]]:
        """Returns the processes that have not ended, and what each was given."""
        over = ended([one.running for one, _ in self._given.values()], 0.0)  # one call, for there may be a thousand
        return [(one, ask) for one, ask in self._given.values() if one.running not in over]

    def check(self) -> None:
        """Ray reports the ends of actors, or that their machines do not answer."""

    def wait(self, processes: Sequence[RayProcess], seconds: float) -> None:
        """Waits until one of some processes has ended, at most for so long."""
        if processes:
            ray.wait([one.running for one in processes], timeout=seconds)
        else:
            time.sleep(seconds)

    def end(self, processes: Collection[RayProcess], grace_s: float, caught: Sequence[str]) -> None:
        """Waits for the end of processes, then kills their actors; at once after a second signal.

        Those that have not begun are killed first.
        """
        self._growing.end()
        deadline = time.monotonic() + grace_s
        if not self._cluster.is_here():
            return
        alive = [one for one in processes if one.exitcode is None]
        begun = [one for one in alive if one.has_begun]
        for one in set(alive) - set(begun):
            one.end()
        while (begun := [one for one in begun if one.exitcode is None]) and time.monotonic() < deadline:
            if len(caught) > 1 or not self._cluster.is_here():
                break
            self.wait(begun, 0.1)
        if self._cluster.is_here():
            for one in begun:
                one.end()
            ended([one.running for one in alive], KILL_S)


def not_started(name: str, ask: Ask) -> str:
    """Returns what is shown of a process that waits for a machine."""
    return f"{name}: not started yet; it needs a machine with {ask} free"
