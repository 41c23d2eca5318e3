"""How many CPU threads a role computes with."""

import os
from collections.abc import Callable
from typing import Literal

import torch

from aal.config.settings import Settings
from aal.coordination.messages import Computing


def cores() -> int:
    """Returns the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(
    role: Literal["server", "worker"], settings: Settings, takes_turns: bool, computing: Computing | None = None
) -> int:
    """Returns how many threads a process of a role computes with, by the settings or as its share of the cores.

    Threads that wait for one another cost more than they bring where cores are shared: on two cores, one busy, a
    training with two threads runs at half the speed of one thread. So a worker, which computes now and then, has one,
    and a training its share of the cores on which no worker selects: all of them while it is alone.

    Args:
        role: of the process.
        settings: of the run.
        takes_turns: whether roles compute one after another; each gets all cores then.
        computing: how many compute; None for all servers beside a worker. A compiled network would be compiled anew for
            another number of threads, so for it the number is kept.
    """
    given: int | None = getattr(settings.devices, f"{role}_threads")
    if given is not None or takes_turns:
        return given or cores()
    if role == "worker":
        return 1
    if computing is None or settings.training.compile:
        computing = Computing(settings.server_num, 1)
    selecting = computing.selections * (settings.devices.worker_threads or 1)
    return max(1, (cores() - selecting) // max(1, computing.trainings))


def follow(role: Literal["server", "worker"], settings: Settings, takes_turns: bool) -> Callable[[Computing], None]:
    """Returns what sets the threads of this process whenever it learns how many roles compute; sets them now.

    Args:
        role: of the process.
        settings: of the run.
        takes_turns: as in `threads_for`.
    """
    torch.set_num_threads(threads_for(role, settings, takes_turns))

    def adapt(computing: Computing) -> None:
        if role == "server":
            torch.set_num_threads(threads_for(role, settings, takes_turns, computing))

    return adapt
