"""Which processes are to move to machines that have joined a cluster."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aal.engines.base import Role
from aal.engines.processes import Slot
from aal.engines.ray.room import Ask

Resources = Mapping[str, float]
AskNow = Callable[[Role, Sequence[Ask]], Ask]  # what one more process of a role asks, beside what others were given


@dataclass(frozen=True)
class Placed:
    """A process that computes.

    Attributes:
        slot: that it fills.
        ask: what it was given.
        machine: Ray's id of the one where it is; empty while it has none.
        may_move: whether it can be moved now.
    """

    slot: Slot
    ask: Ask
    machine: str
    may_move: bool = True


@dataclass(frozen=True)
class Move:
    """The next process of a slot is to begin on another machine, with what it asks there."""

    slot: Slot
    ask: Ask
    machine: str

    def __str__(self) -> str:
        return f"{self.slot.name} ({self.ask})" if self.ask.resources else self.slot.name


def remaining(has: Resources, free: Resources, given: Sequence[Ask]) -> dict[str, float]:
    """Returns what remains of a machine for more processes.

    Args:
        has: its resources.
        free: what nobody had of them a moment ago, other programs on the cluster included.
        given: what processes of this run have there, also such as have only just begun, or will.
    """
    taken = _sum(given)
    return {name: min(free.get(name, 0.0), amount - taken[name]) for name, amount in has.items()}


def _sum(given: Sequence[Ask]) -> defaultdict[str, float]:
    taken = defaultdict[str, float](float)
    for ask in given:
        for name, amount in ask.resources.items():
            taken[name] += amount
    return taken


def for_this_run(has: Resources, free: Resources, given: Sequence[Ask]) -> dict[str, float]:
    """Returns what this run can have of a machine: what it has there, and what nobody has.

    Args:
        has: its resources.
        free: what nobody had of them a moment ago.
        given: what processes of this run have there.
    """
    taken = _sum(given)
    return {name: min(amount, free.get(name, 0.0) + taken[name]) for name, amount in has.items()}


def moves(
    placed: Sequence[Placed],
    under_way: Sequence[Move],
    machines: Mapping[str, Resources],
    targets: Mapping[str, Resources],
    ask_now: AskNow,
    fixed: Collection[str],
    most: Mapping[str, int],
) -> Iterator[Move]:
    """Finds processes that get a GPU or twice the CPUs by a move, then such as share the CPUs of overloaded machines.

    Args:
        placed: all processes that compute, also those that are about to leave.
        under_way: moves of the latter.
        machines: resources of each machine, by its id.
        targets: what remains of those that have joined.
        ask_now: what one more process asks.
        fixed: roles whose CPUs the settings give.
        most: how many more processes of each role may be asked to leave.
    """
    under_way, most = list(under_way), dict(most)
    left = {name: dict(amounts) for name, amounts in targets.items()}
    while move := _next_move(placed, under_way, machines, left, ask_now, fixed, most):
        yield move
        under_way.append(move)
        most[move.slot.role.name] -= 1
        for name, amount in move.ask.resources.items():
            left[move.machine][name] -= amount


def _next_move(
    placed: Sequence[Placed],
    under_way: Sequence[Move],
    machines: Mapping[str, Resources],
    targets: Mapping[str, Resources],
    ask_now: AskNow,
    fixed: Collection[str],
    most: Mapping[str, int],
) -> Move | None:
    leaving = {move.slot for move in under_way}
    ready = [one for one in placed if one.may_move and one.slot not in leaving and most.get(one.slot.role.name, 0) > 0]
    kept = [move.ask for move in under_way]
    alike = {(one.slot.role.name, one.ask): one for one in reversed(ready)}  # one of those that ask the same, the first
    for one in reversed(alike.values()):
        ask = ask_now(one.slot.role, [*(other.ask for other in placed if other is not one), *kept])
        for machine, left in targets.items():
            fitted = _fitted(ask, one.ask, left, one.slot.role.name in fixed)
            if machine != one.machine and fitted.fits(left) and _gains(one.ask, fitted):
                return Move(one.slot, fitted, machine)
    return _from_overloaded(placed, under_way, ready, machines, targets)


def _fitted(ask: Ask, has: Ask, left: Resources, is_fixed: bool) -> Ask:
    """Returns what a process that has something asks of a machine of which so much is left.

    With a GPU go as many of the CPUs as the part of the GPUs that it is, and no fewer than the process has, as far as
    they are there.
    """
    if is_fixed:
        return ask
    cpus = max(0.0, left.get("CPU", 0.0))  # below 0 where Ray has put there what was to be kept for others
    part = min(1.0, ask.gpus / left["GPU"]) if ask.gpus and left.get("GPU") else 1.0
    most = min(max(ask.cpus, has.cpus), max(part * cpus, min(has.cpus, cpus)))
    return dataclasses.replace(ask, cpus=float(int(most)))


def _gains(has: Ask, ask: Ask) -> bool:
    return (ask.gpus > 0 and not has.gpus) or (ask.gpus >= has.gpus and ask.cpus >= max(1.0, 2 * has.cpus))


def _from_overloaded(
    placed: Sequence[Placed],
    under_way: Sequence[Move],
    ready: Sequence[Placed],
    machines: Mapping[str, Resources],
    targets: Mapping[str, Resources],
) -> Move | None:
    """Finds a process without CPUs of its own that has more of one elsewhere."""
    leaving = {move.slot for move in under_way}
    processes, held = Counter[str](), defaultdict[str, float](float)
    stay = [(one.machine, one.ask) for one in placed if one.slot not in leaving]
    for machine, ask in [*stay, *((move.machine, move.ask) for move in under_way)]:
        processes[machine] += not ask.cpus
        held[machine] += ask.cpus

    def load(machine: str, more: int = 0) -> float:
        left = targets.get(machine)  # beside other programs on the cluster
        cpus = machines[machine].get("CPU", 0.0) if left is None else left.get("CPU", 0.0) + held[machine]
        return (held[machine] + processes[machine] + more) / cpus if cpus >= 1 else float("inf")

    sharing = [one for one in ready if not one.ask.cpus and one.machine in machines and load(one.machine) > 1]
    for one in sorted(sharing, key=lambda one: -load(one.machine)):
        fitting = [machine for machine, left in targets.items() if machine != one.machine and one.ask.fits(left)]
        target = min(fitting, key=lambda machine: load(machine, 1), default=None)
        if target is not None and load(target, 1) < load(one.machine):
            return Move(one.slot, one.ask, target)
    return None
