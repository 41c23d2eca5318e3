"""PyTorch in a process: how many CPU threads a role computes with, memory, determinism."""

from collections.abc import Callable
from typing import Literal

import torch

from aal.config.cores import core_count, free_cores_now
from aal.config.settings import Settings
from aal.coordination.messages import Computing
from aal.training.devices import keep_freed_memory

# A thread more than there are free cores makes the others wait for it, at every step; one that has most of a core to
# itself is worth it all the same.
PART_OF_A_CORE = 0.25


def threads_for(
    role: Literal["server", "worker"], settings: Settings, takes_turns: bool, computing: Computing | None = None
) -> int:
    """Returns how many threads a process of a role computes with, by the settings or as its share of the free cores.

    Threads that wait for one another cost more than they bring where cores are shared: on two cores beside two busy
    programs, a training with two threads takes 20 to 60 times as long as with one. So a worker, which computes now and
    then, has one, and a training its share of the cores that neither a worker nor another program uses.

    Args:
        role: of the process.
        settings: of the run.
        takes_turns: whether roles compute one after another; each gets all free cores then.
        computing: how many compute, and the cores that they may share; None for all servers beside a worker, on all
            cores.
    """
    given: int | None = getattr(settings.devices, f"{role}_threads")
    if given is not None:
        return given
    if computing is None:
        computing = Computing(settings.server_num, 1)
    cores = core_count() if computing.free_cores is None else int(computing.free_cores + PART_OF_A_CORE)
    if takes_turns:
        return max(1, cores)
    if role == "worker":
        return 1
    selecting = computing.selections * (settings.devices.worker_threads or 1)
    return max(1, (cores - selecting) // max(1, computing.trainings))


def set_up_local(
    role: Literal["server", "worker"], settings: Settings, takes_turns: bool
) -> Callable[[Computing], None]:
    """Sets up PyTorch in a process of the local engine.

    Args:
        role: of the process.
        settings: of the run.
        takes_turns: as in `threads_for`.

    Returns:
        A function that sets the threads anew when it is called with how many roles compute. A compiled network would be
        compiled anew for another number of threads, so for it the first call decides.
    """
    torch.set_num_threads(threads_for(role, settings, takes_turns))
    torch.backends.cudnn.benchmark = True
    if role == "server":
        keep_freed_memory()

    def adapt(computing: Computing) -> None:
        torch.set_num_threads(threads_for(role, settings, takes_turns, computing))

    if role == "server" and settings.training.compile:
        return _once(lambda computing: adapt(Computing(settings.server_num, 1, computing.free_cores)))
    return adapt


def _once(act: Callable[[Computing], None]) -> Callable[[Computing], None]:
    """Returns a function whose first call acts, and no other."""
    left = [act]
    return lambda computing: left.pop()(computing) if left else None


def set_up_alone() -> None:
    """Sets up PyTorch in a program that computes alone, such as eval.py: a thread for each core that is free now."""
    torch.set_num_threads(max(1, int(free_cores_now() + PART_OF_A_CORE)))


def set_up_simulated(settings: Settings) -> None:
    """Sets up PyTorch in the one process of the simulated engine, where one role computes at a time.

    With one thread unless the settings give a number: sums of floats depend on the number of threads, and a run must
    not depend on what else the machine does. A fixed number above one would make it crawl on a busy machine.
    """
    torch.set_num_threads(settings.devices.server_threads or 1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # a search may end otherwise
