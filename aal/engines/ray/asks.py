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
    ray, slots = settings.ray, {role.name: role.slots for role in roles}
    servers, workers = slots.get("server", 0), slots.get("worker", 0)
    cpus = int(sum(one.get("CPU", 0.0) for one in machines))
    gpus = sum(one.get("GPU", 0.0) for one in machines)
    worker_cpus = ray.worker_cpus or float(cpus >= servers + workers)
    smallest = min((int(one.get("CPU", 0.0)) for one in machines), default=0)
    share = min((cpus - workers) // max(1, servers), smallest // math.ceil(servers / max(1, len(machines)) or 1))
    server_cpus = ray.server_cpus or (float(max(1, share)) if cpus >= servers + workers else 0.0)
    on_gpu = {"server": settings.devices.servers != ["cpu"], "worker": settings.devices.workers != ["cpu"]}
    shared = _part(gpus, servers * on_gpu["server"] + workers * on_gpu["worker"])
    found = {
        "server": (server_cpus, shared if ray.server_gpus is None else ray.server_gpus),
        "worker": (worker_cpus, shared if ray.worker_gpus is None else ray.worker_gpus),
    }
    return {
        role.name: Ask(
            found[role.name][0] if role.name in found else 0.0,
            found[role.name][1] * on_gpu[role.name] if role.name in found else 0.0,
            (ray.pins[role.name],) if role.name in ray.pins else (),
        )
        for role in roles
    }


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
    for name, ask in sorted(asks.items(), key=lambda item: -sum(item[1].resources.values())):
        place = next((one for one in free if ask.fits(one)), None)
        if place is None:
            found.append(f"{name}: asks for {ask}, and no machine has it beside the others")
            continue
        for resource, amount in ask.resources.items():
            place[resource] -= amount
    return found
