"""Whether a cluster has room for what processes ask of it, wherever Ray places them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aal.engines.base import Role

A_BIT = 0.001  # of a resource that pins: enough to be asked for, too little to be used up
UNITS = 10_000  # of a resource, in which Ray counts


@dataclass(frozen=True)
class Ask:
    """What one process asks of Ray.

    Attributes:
        cpus: that Ray keeps for it; 0 where there are too few for all, and Ray spreads them.
        gpus: that it has, also a part of one.
        pins: resources that say where it may run.
    """

    cpus: float = 0.0
    gpus: float = 0.0
    pins: tuple[str, ...] = ()

    @property
    def threads(self) -> int:
        """That it computes with."""
        return max(1, int(self.cpus))

    @property
    def resources(self) -> dict[str, float]:
        """By Ray's names."""
        found = {"CPU": self.cpus, "GPU": self.gpus, **dict.fromkeys(self.pins, A_BIT)}
        return {name: amount for name, amount in found.items() if amount}

    def fits(self, free: Mapping[str, float]) -> bool:
        """Whether a machine has all of it."""
        return all(_units(free.get(name, 0.0)) >= _units(amount) for name, amount in self.resources.items())

    def __str__(self) -> str:
        amounts = [f"{amount:g} {name}" for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount]
        return ", ".join([*amounts, *self.pins]) or "nothing"


def allowed(ask: Ask, machines: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Returns the machines where its pins allow a process to run."""
    return [one for one in machines if all(one.get(pin, 0.0) >= A_BIT for pin in ask.pins)]


def suited(ask: Ask, machines: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Returns those of the machines where a process may run that have the GPUs that it asks for."""
    return [one for one in allowed(ask, machines) if one.get("GPU", 0.0) >= ask.gpus]


def short_of(
    asks: Mapping[str, Ask], slots: Mapping[str, int], machines: Sequence[Mapping[str, float]], resource: str
) -> dict[str, int]:
    """Returns for how many processes there is room, by role, where that is not for all: wherever Ray puts the others.

    Args:
        asks: of a process of each role.
        slots: processes of each role.
        machines: resources of each machine of the cluster.
        resource: CPU or GPU.
    """
    found = {}
    parts = {name: _units(ask.resources.get(resource, 0.0)) for name, ask in asks.items()}
    places = {name: {id(one) for one in allowed(ask, machines)} for name, ask in asks.items() if parts[name]}
    for name in places:
        others = [one for one in places if one != name and places[one] & places[name]]
        room = _room(
            [_units(one.get(resource, 0.0)) for one in machines if id(one) in places[name]],
            parts[name],
            sum(slots[one] * parts[one] for one in others),
            min((parts[one] for one in others), default=1),
        )
        if room < slots[name]:
            found[name] = room
    return found


def has_room_beside(
    ask: Ask, held: Sequence[Ask], machines: Sequence[Mapping[str, float]], resource: str = "CPU"
) -> bool:
    """Whether a machine has what one more process asks, wherever Ray has put those that have theirs.

    Args:
        ask: of the process.
        held: what each of the others was given.
        machines: resources of each machine of the cluster.
        resource: CPU or GPU.
    """
    places = [id(one) for one in suited(ask, machines)]
    size = _units(ask.resources.get(resource, 0.0))
    others = [
        (_units(part), number)
        for one, number in Counter(held).items()
        if (part := one.resources.get(resource, 0.0))
        and any(id(machine) in places for machine in suited(one, machines))
    ]
    small = [(other, number) for other, number in others if other < size]
    room = _room(
        [_units(one.get(resource, 0.0)) for one in machines if id(one) in places],
        size,
        sum(other * number for other, number in small),
        min((other for other, _ in small), default=1),
    )
    # Of what is left, one that is no smaller takes as many parts as it begins.
    return room > sum(-(-other // size) * number for other, number in others if other >= size)


def _units(amount: float) -> int:
    return int(amount * UNITS + 1e-6)


def _room(free: Sequence[int], size: int, taken: int, piece: int) -> int:
    """Returns how many parts of a size fit into machines, where others take what they have from the worst places.

    Args:
        free: of each machine.
        size: of a part.
        taken: by all others together.
        piece: the least that one of them takes.
    """
    room = sum(one // size for one in free)
    for cost in sorted(min(size, (one % size // piece + 1) * piece) for one in free if one >= size):
        if cost > taken:
            return room
        taken, room = taken - cost, room - 1  # the first that takes what is over from a machine costs the least
    return max(0, room - taken // size)


def missing(asks: Mapping[str, Ask], machines: Sequence[Mapping[str, float]], roles: Sequence[Role] = ()) -> list[str]:
    """Returns what a cluster lacks for a start: room for one process of each role, for all where a run needs all.

    Args:
        asks: of a process of each role.
        machines: resources of each machine of the cluster.
        roles: of the run.

    Returns:
        A line for each role that lacks something.
    """
    free, found = [dict(one) for one in machines], {}
    choice = {name: sum(ask.fits(one) for one in machines) for name, ask in asks.items()}
    for name, ask in sorted(asks.items(), key=lambda item: (choice[item[0]], -sum(item[1].resources.values()))):
        place = next((one for one in free if ask.fits(one)), None)
        if place is None:
            pinned = f" (ray.pins.{name})" if ask.pins else ""
            found[name] = f"{name}: asks for {ask}{pinned}, and no machine has it beside the others"
            continue
        for resource, amount in ask.resources.items():
            place[resource] -= amount
    slots = {role.name: role.slots for role in roles}
    short = [short_of(asks, slots, machines, resource) for resource in ("CPU", "GPU")] if roles else []
    for role in roles:
        rooms = [rooms[role.name] for rooms in short if role.name in rooms]
        if role.needs_all and rooms and role.name not in found:
            each = "1 process asks for" if role.slots == 1 else f"{role.slots} processes ask each for"
            found[role.name] = (
                f"{role.name}: {each} {asks[role.name]}, and there is room for {min(rooms)} of them where Ray may put "
                "the others first; the run needs all: pin the others elsewhere, let each ask for less, or share "
                "processes (ray.pins, ray.worker_cpus, ray.worker_gpus, devices.worker_processes)"
            )
    return list(found.values())
