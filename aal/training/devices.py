"""Where a process computes, with how many threads, and in which precision."""

import contextlib
import ctypes

import torch

from aal.config.errors import UserError
from aal.config.settings import DeviceSettings

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 2**30


def resolve_device(name: str, index: int) -> torch.device:
    """Returns the device that role number `index` computes on.

    Args:
        name: auto, cpu, cuda or cuda:i; auto and cuda deal out the GPUs in turn.
        index: number of the role among those that share the setting.

    Raises:
        UserError: there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    number = int(name[5:]) if name.startswith("cuda:") else index % max(count, 1)
    if number >= count:
        raise UserError(f"{name} is not there, PyTorch sees {count} CUDA devices; use auto or cpu")
    return torch.device("cuda", number)


def check_devices(devices: DeviceSettings) -> None:
    """Raises UserError with a line for each device that the settings name and this machine lacks."""
    problems = []
    for key in ("servers", "workers"):
        for name in dict.fromkeys(getattr(devices, key)):
            try:
                resolve_device(name, 0)
            except UserError as error:
                problems += [f"devices.{key}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)


def keep_freed_memory() -> None:
    """Lets this process keep what a training step frees for the next step.

    By default glibc gives large blocks back to the system, and every step takes page faults to get them again.
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(threshold, KEPT_BYTES)


def computes_in_bf16(device: torch.device) -> bool:
    """Returns whether the device has instructions for bfloat16, which make it faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # PyTorch may drop these two private names; float32 is right without them.
    asked = (getattr(torch.cpu, name, bool) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask() for ask in asked)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a network computes with a precision of the training settings."""
    enabled = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
