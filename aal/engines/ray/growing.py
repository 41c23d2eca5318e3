"""How machines that join a cluster while a hub runs come into use: processes end where they are, and begin there."""

import itertools
import logging
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from aal import __version__
from aal.coordination.fence import Incarnations
from aal.coordination.parts import asks_for_work
from aal.engines.base import Display, Role
from aal.engines.processes import Slot
from aal.engines.ray.cluster import Cluster, Found, Watch, ended
from aal.engines.ray.hub_client import RemoteHub
from aal.engines.ray.moves import AskNow, Move, Placed, for_this_run, moves, remaining
from aal.engines.ray.process import RayProcess
from aal.engines.ray.room import Ask

LOOK_S = 2.0  # between two looks at what has joined
AT_ONCE = 4  # one in so many processes of a role may be on its way, so that the others train and choose meanwhile
MOST = 10  # that are asked to leave in one look
REST_S = 300.0  # before a process is moved again, since what other programs leave of a machine may change often
BEGIN_S = 20.0  # for a process that has moved to begin; then it is to begin wherever there is room

log = logging.getLogger("aal")


class Growing:
    """Decides which processes move, and asks them to leave.

    Args:
        cluster: whose machines it watches.
        hub: of the run.
        incarnations: of the processes under this hub.
        asks_on: what one more process asks, on such machines.
        fixed: roles whose CPUs the settings give.
        needed: what a machine must see to be used.
        display: where it is shown which processes move.
    """

    def __init__(
        self,
        cluster: Cluster,
        hub: RemoteHub,
        incarnations: Incarnations,
        asks_on: Callable[[Sequence[Mapping[str, float]]], AskNow],
        fixed: Sequence[str],
        needed: Sequence[pathlib.Path],
        display: Display,
    ) -> None:
        self._cluster = cluster
        self._hub = hub
        self._incarnations = incarnations
        self._asks_on = asks_on
        self._fixed = fixed
        self._needed = needed
        self._display = display
        self._first = cluster.machines().keys()
        self._watch = Watch(cluster)
        self._checks: dict[str, Any] = {}  # of machines that have joined: the call that says what they lack
        self._moves: dict[Slot, Move] = {}  # of processes that were asked to leave
        self._moved_at: dict[Slot, float] = {}
        self._looked_at = time.monotonic()

    def look(self, alive: Callable[[], list[tuple[RayProcess, Ask]]]) -> None:
        """Looks, now and then, whether machines have joined, and requests shutdown of processes that are to move there.

        Args:
            alive: returns the processes that have not ended, and what each was given.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at, given = now, alive()
        for process, _ in given:
            if process.moves and not process.has_begun and now - process.since > BEGIN_S:
                process.withdraw()  # meanwhile others have what it asks for
        machines, free = self._watch.found
        if not (joined := [one for one in machines.keys() - self._first if self._is_usable(one, given)]):
            return
        placed = self._placed(given, now)
        targets = {one: self._remaining(one, machines, free, given) for one in joined}
        ask_now = self.ask_now(machines, given)
        most = self._may_leave(given)
        planned = moves(placed, list(self._moves.values()), machines, targets, ask_now, self._fixed, most)
        if found := list(itertools.islice(planned, MOST)):
            self._request(found, {process.slot: process for process, _ in given}, now)

    def move_of(self, slot: Slot, given: Sequence[tuple[RayProcess, Ask]]) -> Move | None:
        """Returns where the next process of a slot is to begin, if it is to move and there is still room."""
        move, (machines, free) = self._moves.pop(slot, None), self._watch.found
        if move is None or move.machine not in machines:
            return None
        self._moved_at[slot] = time.monotonic()
        return move if move.ask.fits(self._remaining(move.machine, machines, free, given)) else None

    def ask_now(self, machines: Found, given: Sequence[tuple[RayProcess, Ask]]) -> AskNow:
        """Returns what one more process asks: of a machine that has joined no more than other programs leave there.

        Args:
            machines: that are there.
            given: the processes that have what they were given, or had it a moment ago.
        """
        _, free = self._watch.found
        seen = [
            for_this_run(has, free[name], [ask for one, ask in given if one.machine == name])
            if name in free and name not in self._first
            else has
            for name, has in machines.items()
            if self._checks.get(name, "") is not None
        ]
        return self._asks_on(seen)

    def kept(self) -> list[Ask]:
        """Returns what is kept for processes that are about to move."""
        return [move.ask for move in self._moves.values()]

    def end(self) -> None:
        """Ends the look at the machines."""
        self._watch.end()

    def _request(self, found: Sequence[Move], processes: Mapping[Slot, RayProcess], now: float) -> None:
        for move in found:
            processes[move.slot].is_leaving = True
            self._moves[move.slot], self._moved_at[move.slot] = move, now
        leaving = [(move.slot.name, self._incarnations.newest(move.slot.name)) for move in found]
        self._hub.asked(self._hub.host.leave.remote(leaving))
        text = f"a machine has joined, to which these move: {', '.join(map(str, found))}"
        self._display.note(text)
        log.info(text)

    def _placed(self, given: Sequence[tuple[RayProcess, Ask]], now: float) -> list[Placed]:
        def may_move(one: RayProcess) -> bool:
            rests = now - self._moved_at.get(one.slot, -REST_S) < REST_S
            return one.has_begun and not one.is_leaving and not rests

        computing = [(one, ask) for one, ask in given if asks_for_work(one.slot.role.sees)]
        return [
            Placed(one.slot, ask, one.machine if one.has_begun or one.moves else "", may_move(one))
            for one, ask in computing
        ]

    def _remaining(
        self, machine: str, machines: Found, free: Found, given: Sequence[tuple[RayProcess, Ask]]
    ) -> dict[str, float]:
        there = [ask for one, ask in given if one.machine == machine]
        there += [move.ask for move in self._moves.values() if move.machine == machine]
        return remaining(machines[machine], free.get(machine, {}), there)

    def _may_leave(self, given: Sequence[tuple[RayProcess, Ask]]) -> dict[str, int]:
        """Returns how many more processes of each role may be asked to leave."""
        busy = [one for one, _ in given if one.is_leaving or (one.moves and not one.has_begun)]
        under_way = Counter(one.slot.role.name for one in busy)
        roles = {one.slot.role.name: one.slot.role for one, _ in given}
        return {name: max(1, role.slots // AT_ONCE) - under_way[name] for name, role in roles.items()}

    def _is_usable(self, machine: str, given: Sequence[tuple[RayProcess, Ask]]) -> bool:
        """Whether a machine that has joined can run the program, as far as it has said so."""
        if machine not in self._checks:
            self._cluster.wait_for_head()
            moving = [one.slot.role for one, _ in given if asks_for_work(one.slot.role.sees)]
            roles = {role.name: replace(role, args=(), rows=None) for role in moving}
            task = ray.remote(_what_is_missing).options(
                num_cpus=0, scheduling_strategy=self._cluster.on_machine(machine)
            )
            self._checks[machine] = task.remote(__version__, list(roles.values()), self._needed)
        check = self._checks[machine]
        if check is None or not ended([check], 0.0):
            return False
        try:
            problem = ray.get(check)
        except RayError as error:
            problem = str(error).strip().splitlines()[-1]
        if problem:
            self._checks[machine] = None
            self._display.note(text := f"a machine has joined that is not used: {problem}")
            log.warning(text)
        return not problem


def _what_is_missing(version: str, roles: Sequence[Role], needed: Sequence[pathlib.Path]) -> str:
    """Returns why the machine where this is called cannot run the roles; nothing where it can."""
    if missing := [str(path) for path in needed if not path.exists()]:
        return f"it does not see {', '.join(missing)}"
    if __version__ != version:
        return f"it has version {__version__} of this program, and the command's has {version}"
    for role in roles:
        role.load()
    return ""
