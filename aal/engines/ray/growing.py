"""Which processes move when machines join a cluster, so that these are used."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aal.engines.processes import Slot
from aal.engines.ray.room import A_BIT, Ask

Resources = Mapping[str, float]
AT_ONCE = 4  # one in so many processes of a role may be on its way, so that the others choose and train meanwhile


@dataclass(frozen=True)
class Placed:
    """A process, or the place that is kept for one that is on its way.

    Attributes:
        slot: that it fills.
        ask: what it was given.
        machine: where it is.
        may_move: whether it can be moved now.
    """

    slot: Slot
    ask: Ask
    machine: str
    may_move: bool


@dataclass(frozen=True)
class Move:
    """A process of a slot is to go on elsewhere, with what it asks there."""

    slot: Slot
    ask: Ask
    machine: str

    def __str__(self) -> str:
        return f"{self.slot.name} ({self.ask})" if self.ask.resources else self.slot.name


def left_of(machine: str, has: Resources, free: Resources, placed: Sequence[Placed]) -> dict[str, float]:
    """Returns what is left of a machine for more processes.

    Args:
        machine: its id.
        has: its resources.
        free: what nobody had of them a moment ago, other programs on the cluster included.
        placed: all processes of the run, also such as have only just begun, or will.
    """
    taken = defaultdict[str, float](float)
    for one in placed:
        for name, amount in one.ask.resources.items() if one.machine == machine else ():
            taken[name] += amount
    return {name: min(free.get(name, 0.0), amount - taken[name]) for name, amount in has.items()}


def moves(
    placed: Sequence[Placed],
    machines: Mapping[str, Resources],
    free: Mapping[str, Resources],
    wished: Callable[[Slot, Sequence[Ask]], Ask],
) -> Iterator[Move]:
    """Finds who moves: who gets a GPU or twice the CPUs so, then who shares CPUs that are more crowded than others.

    Args:
        placed: all processes that compute, the places that are kept for some of them last.
        machines: resources of each machine, by its id.
        free: of those that have joined, what nobody has.
        wished: what a process of a slot would ask now, beside what each of the others was given.
    """
    placed, left = list(placed), {name: dict(amounts) for name, amounts in free.items()}
    under_way = Counter(slot.role.name for slot in {one.slot for one in placed if not one.may_move})
    while move := _next_move(placed, machines, left, wished, under_way):
        yield move
        under_way[move.slot.role.name] += 1
        placed = [dataclasses.replace(one, may_move=one.may_move and one.slot != move.slot) for one in placed]
        placed.append(Placed(move.slot, move.ask, move.machine, False))
        for name, amount in move.ask.resources.items():
            left[move.machine][name] -= amount


def _next_move(
    placed: Sequence[Placed],
    machines: Mapping[str, Resources],
    free: Mapping[str, Resources],
    wished: Callable[[Slot, Sequence[Ask]], Ask],
    under_way: Mapping[str, int],
) -> Move | None:
    ready = [
        one
        for one in placed
        if one.may_move and under_way.get(one.slot.role.name, 0) < max(1, one.slot.role.slots // AT_ONCE)
    ]
    alike = {(one.slot.role.name, one.ask): one for one in reversed(ready)}  # who have the same wish; the first of them
    for one in reversed(alike.values()):
        wish = wished(one.slot, [other.ask for other in placed if other is not one])
        for machine, left in free.items():
            ask = _fitted(wish, one.ask, left)
            if ask.fits(left) and _gains(one.ask, ask):
                return Move(one.slot, ask, machine)
    return _out_of_the_crowd(placed, ready, machines, free)


def _fitted(wish: Ask, has: Ask, left: Resources) -> Ask:
    """Returns what a process asks of a machine: of CPUs its part by GPUs, no fewer than it has."""
    part = min(1.0, wish.gpus / left["GPU"]) if wish.gpus and left.get("GPU") else 1.0
    cpus = float(int(part * left.get("CPU", 0.0)))
    return dataclasses.replace(wish, cpus=min(wish.cpus, max(has.cpus, cpus)))


def _gains(has: Ask, ask: Ask) -> bool:
    return (ask.gpus > 0 and not has.gpus) or ask.cpus >= max(1.0, 2 * has.cpus)


def _out_of_the_crowd(
    placed: Sequence[Placed],
    ready: Sequence[Placed],
    machines: Mapping[str, Resources],
    free: Mapping[str, Resources],
) -> Move | None:
    """Finds a process without CPUs of its own for which there is more of one elsewhere."""
    crowd, held = defaultdict[str, float](float), defaultdict[str, float](float)
    for one in {one.slot: one for one in placed}.values():  # who is on the way counts where that leads
        crowd[one.machine] += one.ask.cpus or 1.0
        held[one.machine] += one.ask.cpus

    def load(machine: str, more: int = 0) -> float:
        left = free.get(machine)  # beside other programs on the cluster
        cpus = machines[machine].get("CPU", 0.0) if left is None else left.get("CPU", 0.0) + held[machine]
        return (crowd[machine] + more) / max(cpus, A_BIT)

    shares = [one for one in ready if not one.ask.cpus and one.machine in machines and load(one.machine) > 1]
    for one in sorted(shares, key=lambda one: -load(one.machine)):
        fitting = [machine for machine, left in free.items() if machine != one.machine and one.ask.fits(left)]
        target = min(fitting, key=lambda machine: load(machine, 1), default=None)
        if target is not None and load(target, 1) < load(one.machine):
            return Move(one.slot, one.ask, target)
    return None
