"""What each process asks of Ray: CPUs, GPUs, and the resources that pin it to machines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aal.config.settings import Settings
from aal.engines.base import Role

A_BIT = 0.001  # of a resource that pins: enough to be asked for, too little to be used up


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
        return all(free.get(name, 0.0) >= amount for name, amount in self.resources.items())

    def __str__(self) -> str:
        amounts = [f"{amount:g} {name}" for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount]
        return ", ".join([*amounts, *self.pins]) or "nothing"


def asks_of(settings: Settings, roles: Sequence[Role], machines: Sequence[Mapping[str, float]]) -> dict[str, Ask]:
    """Returns what a process of each role asks, by its name.

    Args:
        settings: of the run.
        roles: of the run.
        machines: resources of each machine of the cluster.
    """
    kinds = {role.name: _kind(settings, role) for role in roles}
    slots = {role.name: role.slots for role in roles if kinds[role.name].computes}
    trainer = "client" if "client" in slots else "server"
    trainers, others = slots.get(trainer, 0), sum(number for name, number in slots.items() if name != trainer)
    cpus = int(sum(one.get("CPU", 0.0) for one in machines))
    gpus = sum(one.get("GPU", 0.0) for one in machines)
    smallest = min((int(one.get("CPU", 0.0)) for one in machines), default=0)
    share = min((cpus - others) // max(1, trainers), smallest // math.ceil(trainers / max(1, len(machines)) or 1))
    part = _part(gpus, sum(number for name, number in slots.items() if kinds[name].on_gpu))
    found = {}
    for name, kind in kinds.items():
        own_cpus = float(max(1, share) if name == trainer else 1) if cpus >= trainers + others else 0.0
        own_gpus = part if kind.gpus is None else kind.gpus
        found[name] = Ask(
            kind.computes * (kind.cpus or own_cpus),
            kind.on_gpu * own_gpus,
            (settings.ray.pins[name],) if name in settings.ray.pins else (),
        )
    return found


@dataclass(frozen=True)
class _Kind:
    """What the settings say of a process of a role: whether it computes, on a GPU too; and what it is to ask for."""

    computes: bool = False
    on_gpu: bool = False
    cpus: float | None = None
    gpus: float | None = None


def _kind(settings: Settings, role: Role) -> _Kind:
    ray, devices = settings.ray, settings.devices
    if role.name in ("worker", "client"):
        return _Kind(True, devices.workers != ["cpu"], ray.worker_cpus, ray.worker_gpus)
    if role.name in ("server", "evaluator"):
        averages = role.sees == "aggregator"  # which needs no GPU
        return _Kind(True, not averages and devices.servers != ["cpu"], ray.server_cpus, ray.server_gpus)
    return _Kind()


def _part(gpus: float, processes: int) -> float:
    """Returns how much of a GPU each of some processes can have: whole ones, or equal parts that fit together."""
    if not gpus or not processes:
        return 0.0
    return 1.0 if gpus >= processes else 1.0 / math.ceil(processes / gpus)


def missing(asks: Mapping[str, Ask], machines: Sequence[Mapping[str, float]]) -> list[str]:
    """Returns what a cluster lacks to run one process of each role at once; a line each.

    Args:
        asks: of a process of each role.
        machines: resources of each machine of the cluster.
    """
    free, found = [dict(one) for one in machines], []
    choice = {name: sum(ask.fits(one) for one in machines) for name, ask in asks.items()}
    for name, ask in sorted(asks.items(), key=lambda item: (choice[item[0]], -sum(item[1].resources.values()))):
        place = next((one for one in free if ask.fits(one)), None)
        if place is None:
            found.append(f"{name}: asks for {ask}, and no machine has it beside the others")
            continue
        for resource, amount in ask.resources.items():
            place[resource] -= amount
    return found
