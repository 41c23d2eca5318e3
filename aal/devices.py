"""Where a process computes, with how many threads, and in which precision."""

import os

import torch

from aal.errors import UserError


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
        raise UserError(f"devices: {name} is not there, PyTorch sees {count} CUDA devices; use auto or cpu")
    return torch.device("cuda", number)


def use_threads(threads: int | None, sharers: int) -> None:
    """Sets the CPU threads this process computes with; None is the share of one of `sharers` in the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores // sharers))


def computes_in_bf16(device: torch.device) -> bool:
    """Tells whether the device has instructions for bfloat16, which make it faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # PyTorch may drop these two private names; float32 is right without them.
    asked = (getattr(torch.cpu, name, bool) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask() for ask in asked)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a network computes with a precision of the training settings."""
    enabled = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
