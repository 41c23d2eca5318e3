"""What each process asks of Ray: CPUs, GPUs, and the resources that pin it to machines."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aal.config.settings import Settings
from aal.engines.base import Role
from aal.engines.ray.room import Ask, allowed, has_room_beside, short_of

HUB = "hub"


def next_ask(
    settings: Settings,
    asks: Mapping[str, Ask],
    machines: Sequence[Mapping[str, float]],
    first: Mapping[str, Ask],
    role: Role,
    held: Sequence[Ask],
) -> Ask:
    """Returns what the next process of a role asks: no more than is left, but a GPU if the run began with one for it.

    Args:
        settings: of the run.
        asks: of processes at a start of the run, on the machines that are there, by role.
        machines: resources of each of these.
        first: what processes asked when the run began, by role.
        role: of the process.
        held: what each of the other processes was given.
    """
    ask, begun = asks[role.name], first[role.name].gpus
    if not ask.gpus or (not begun and not has_room_beside(ask, held, machines, "GPU")):
        ask = dataclasses.replace(ask, gpus=begun)
    if names_cpus(settings, role):
        return ask
    shares = [dataclasses.replace(ask, cpus=float(cpus)) for cpus in range(int(ask.cpus), -1, -1)]
    return next(share for share in shares if not share.cpus or has_room_beside(share, held, machines))


def names_cpus(settings: Settings, role: Role) -> bool:
    """Whether the settings give the CPUs of a process."""
    return _kind(settings, role).cpus is not None


def ask_of_hub(settings: Settings) -> dict[str, Ask]:
    """Returns what the hub asks, by its name; nothing unless it is pinned."""
    return {HUB: Ask(pins=(settings.ray.pins[HUB],))} if HUB in settings.ray.pins else {}


def asks_of(settings: Settings, roles: Sequence[Role], machines: Sequence[Mapping[str, float]]) -> dict[str, Ask]:
    """Returns what a process of each role asks at the start of a run, by its name.

    Args:
        settings: of the run.
        roles: of the run.
        machines: resources of each machine of the cluster.
    """
    kinds = {role.name: _kind(settings, role) for role in roles}
    pins = {name: (settings.ray.pins[name],) if name in settings.ray.pins else () for name in kinds}
    own_gpus = _gpus({role.name: role.slots for role in roles if kinds[role.name].on_gpu}, pins, machines)
    asks = {
        name: Ask(
            kind.computes * (kind.cpus or 1.0),
            kind.on_gpu * (own_gpus.get(name) or float(kind.needs_gpu) if kind.gpus is None else kind.gpus),
            pins[name],
        )
        for name, kind in kinds.items()
    }
    slots = {role.name: role.slots for role in roles}
    chosen = {name for name, kind in kinds.items() if kind.computes and kind.cpus is None}
    trainer = "client" if "client" in slots else "server"
    for names in (chosen - {trainer}, chosen):  # a training makes use of several, a selection waits for its turn
        asks |= _without_cpus(asks, names & short_of(asks, slots, machines, "CPU").keys())
    if short_of(asks, slots, machines, "CPU"):  # by numbers of the user's, which nothing else may be in the way of
        asks |= _without_cpus(asks, chosen)
    if trainer in chosen and asks[trainer].cpus:
        cpus = [int(one.get("CPU", 0.0)) for one in allowed(asks[trainer], machines)]
        for share in range(min(sum(cpus) // slots[trainer], max(cpus, default=0)), 1, -1):
            tried = asks | {trainer: dataclasses.replace(asks[trainer], cpus=float(share))}
            if not short_of(tried, slots, machines, "CPU"):
                return tried
    return asks


def _without_cpus(asks: Mapping[str, Ask], names: Collection[str]) -> dict[str, Ask]:
    return {name: dataclasses.replace(asks[name], cpus=0.0) for name in names}


@dataclass(frozen=True)
class _Kind:
    """What the settings say of a process: whether it computes, may or must use a GPU, and what it is to ask for."""

    computes: bool = False
    on_gpu: bool = False
    needs_gpu: bool = False
    cpus: float | None = None
    gpus: float | None = None


def _kind(settings: Settings, role: Role) -> _Kind:
    ray, devices = settings.ray, settings.devices
    if role.name in ("worker", "client"):
        on_gpu, needs_gpu = _gpu(devices.workers)
        return _Kind(True, on_gpu, needs_gpu, ray.worker_cpus, ray.worker_gpus)
    if role.name in ("server", "evaluator"):
        averages = role.sees == "aggregator"  # which needs no GPU
        on_gpu, needs_gpu = _gpu(["cpu"] if averages else devices.servers)
        return _Kind(True, on_gpu, needs_gpu, ray.server_cpus, ray.server_gpus)
    return _Kind()


def _gpu(names: Sequence[str]) -> tuple[bool, bool]:
    """Returns whether a process that has one of these devices may compute on a GPU, and whether it must."""
    return set(names) != {"cpu"}, not {"auto", "cpu"} & set(names)


def _gpus(
    slots: Mapping[str, int], pins: Mapping[str, tuple[str, ...]], machines: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Returns what each process has of a GPU, by role: whole ones, or equal parts that fit together.

    The machines that a pin allows are to have room for all of them, since the others may come there too.

    Args:
        slots: processes of each role that uses GPUs.
        pins: of each role.
        machines: resources of each machine of the cluster.
    """
    found = {name: sum(one.get("GPU", 0.0) for one in allowed(Ask(pins=pins[name]), machines)) for name in slots}
    least, processes = min(filter(None, found.values()), default=0.0), sum(slots.values())
    part = 1.0 if least >= processes else 1.0 / math.ceil(processes / least) if least else 0.0
    return {name: part if gpus else 0.0 for name, gpus in found.items()}
