"""PyTorch in a process: how many CPU threads a role computes with, memory, determinism."""

from collections.abc import Callable
from typing import Literal

import torch

from aal.config.cores import core_count
from aal.config.settings import Settings
from aal.coordination.messages import Computing
from aal.training.devices import keep_freed_memory


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
        return given or core_count()
    if role == "worker":
        return 1
    if computing is None or settings.training.compile:
        computing = Computing(settings.server_num, 1)
    selecting = computing.selections * (settings.devices.worker_threads or 1)
    return max(1, (core_count() - selecting) // max(1, computing.trainings))


def set_up_local(
    role: Literal["server", "worker"], settings: Settings, takes_turns: bool
) -> Callable[[Computing], None]:
    """Sets up PyTorch in a process of the local engine.

    Args:
        role: of the process.
        settings: of the run.
        takes_turns: as in `threads_for`.

    Returns:
        A function that sets the threads anew when it is called with how many roles compute.
    """
    torch.set_num_threads(threads_for(role, settings, takes_turns))
    torch.backends.cudnn.benchmark = True
    if role == "worker":
        return lambda computing: None
    keep_freed_memory()
    return lambda computing: torch.set_num_threads(threads_for(role, settings, takes_turns, computing))


def set_up_simulated(settings: Settings) -> None:
    """Sets up PyTorch in the one process of the simulated engine, where one role computes at a time."""
    torch.set_num_threads(settings.devices.server_threads or core_count())
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # a search may end otherwise
