"""Which device each role of a run computes on: dealt out once, so that a restarted role finds its own again."""

import pathlib
from collections.abc import Sequence

from aal.config.errors import UserError
from aal.config.settings import DeviceSettings, Settings

# Where Linux shows that there is a driver of NVIDIA's, of NVIDIA's under Windows, or of AMD's.
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
ANY_GPU = ("auto", "cuda")


def placed(settings: Settings, servers: int, workers: int) -> Settings:
    """Returns the settings of a run with the devices of this machine in them; see `place`."""
    if settings.compute == "none" or settings.engine == "ray":  # Ray gives each process what it may see
        return settings
    return settings.model_copy(update={"devices": place(settings.devices, servers, workers, count_gpus())})


def count_gpus() -> int:
    """Returns how many GPUs PyTorch sees; it takes seconds to load and is not asked where there is no driver."""
    if not any(pathlib.Path(driver).exists() for driver in DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def place(devices: DeviceSettings, servers: int, workers: int, gpus: int) -> DeviceSettings:
    """Returns settings that name a device for each server and for each process of workers.

    Servers are dealt GPUs from the first one on, workers from the last one back, so that they meet only where there are
    more of them than GPUs. Workers on GPUs share one process a GPU unless `worker_processes` says otherwise: each
    process on a card costs half a gigabyte before it holds anything.

    Args:
        devices: of the run.
        servers: how many there are.
        workers: how many there are.
        gpus: that PyTorch sees.

    Raises:
        UserError: a GPU that is named is not there; a line for each.
    """
    problems = []
    for key, names in (("servers", devices.servers), ("workers", devices.workers)):
        for name in dict.fromkeys(names):
            if name.startswith("cuda") and int(name[5:] or 0) >= gpus:
                there = f"PyTorch sees {gpus} CUDA devices"
                problems.append(f"devices.{key}: {name} is not there, {there}; use auto or cpu")
    if problems:
        raise UserError(*problems)
    processes = min(workers, devices.worker_processes or _processes(devices.workers, workers, gpus))
    return devices.model_copy(
        update={
            "servers": _dealt(devices.servers, servers, range(gpus)),
            "workers": _dealt(devices.workers, processes, range(gpus)[::-1]),
            "worker_processes": processes,
        }
    )


def _processes(names: Sequence[str], workers: int, gpus: int) -> int:
    on_cpu = "cpu" in names or ("auto" in names and not gpus)
    if on_cpu:
        return workers
    return gpus if set(names) & set(ANY_GPU) else len(set(names))


def _dealt(names: Sequence[str], number: int, gpus: Sequence[int]) -> list[str]:
    """Gives each name in turn; those that leave the GPU open get one after the other."""
    found: list[str] = []
    dealt = 0
    for place_ in range(number):
        name = names[place_ % len(names)]
        if name in ANY_GPU and gpus:
            name = f"cuda:{gpus[dealt % len(gpus)]}"
            dealt += 1
        found.append("cpu" if name == "auto" else name)
    return found
