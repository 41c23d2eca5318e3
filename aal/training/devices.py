"""Where a process computes, with how many threads, and in which precision."""

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator

import torch
from torch import nn

from aal.config.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 2**30
ONEDNN_BLOCK = 16  # channels, at the most

ADVICE = "put fewer roles on it (devices), or use a smaller width or training.batch_size"

log = logging.getLogger("aal")


def resolve_device(name: str) -> torch.device:
    """Returns the device of a name: auto, cpu, cuda, cuda:i, or GPU-... and MIG-..., the identifiers of nvidia-smi -L.

    auto and cuda are the first GPU, auto without any the CPU. A GPU by its identifier becomes the only one that this
    process sees, for that is how CUDA opens a part of a GPU.

    Raises:
        UserError: there is no such device.
    """
    if name.startswith(("GPU-", "MIG-")):
        os.environ["CUDA_VISIBLE_DEVICES"] = name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    number = int(name[5:]) if name.startswith("cuda:") else 0
    if number >= count:
        raise UserError(f"{name} is not there, PyTorch sees {count} CUDA devices; use auto or cpu")
    return torch.device("cuda", number)


def use_device(name: str) -> torch.device:
    """Returns the device that a role computes on, and makes it this process's own: nothing opens another GPU."""
    device = resolve_device(name)
    if device.type == "cpu":
        log.info("computes on the CPU")
        return device
    with explained_memory_errors("a process"):
        torch.cuda.set_device(device)
    log.info("computes on %s, %s", device, torch.cuda.get_device_name(device))
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether a GPU had no memory left: PyTorch's allocator reports it, or CUDA itself."""
    is_cudas = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return is_cudas or isinstance(error, torch.OutOfMemoryError)


@contextlib.contextmanager
def explained_memory_errors(what: str) -> Iterator[None]:
    """Turns the error of a GPU without memory for `what` into a `UserError` of one line."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).split("\n")[0]
        raise UserError(f"a GPU has no memory left for {what} ({reason}); {ADVICE}") from None


def release_cached_memory() -> None:
    """Gives back what PyTorch keeps of a GPU for later, so that other processes on it can have it."""
    torch.cuda.empty_cache()  # nothing happens where no GPU is in use


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


def uses_bf16(device: torch.device, precision: str) -> bool:
    """Returns whether a precision of the training settings is bfloat16 on a device."""
    return precision == "bf16" or (precision == "auto" and computes_in_bf16(device))


def trains_in_bf16(model: nn.Module, device: torch.device, precision: str) -> bool:
    """Returns whether a network is trained in bfloat16 on a device.

    Under "auto" not on a CPU where it has grouped convolutions: their gradients take three to five times as long there
    as in float32 (a step of mobilenet_v3:small_a with 32 images 53 ms instead of 15).
    """
    if precision == "auto" and device.type == "cpu":
        is_grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
        return not is_grouped and uses_bf16(device, precision)
    return uses_bf16(device, precision)


def trains_in_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Returns whether the gradients of a network are right on a device in channels_last.

    On a CPU oneDNN 3.12 writes past its own memory in the gradient of the kernels of a 1x1 convolution with a stride,
    in channels_last, from fewer channels than one of its blocks (8, 16 with AVX-512): wrong numbers, or a crash
    (uxlfoundation/oneDNN, issue 6035).
    """
    return device.type != "cpu" or not any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < ONEDNN_BLOCK
        for module in model.modules()
    )


@contextlib.contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """In it, networks compute forward with a precision of the training settings."""
    with float32_arithmetic(precision), torch.autocast(device.type, torch.bfloat16, uses_bf16(device, precision)):
        yield


@contextlib.contextmanager
def float32_arithmetic(precision: str) -> Iterator[None]:
    """In it, float32 on a GPU is float32, or TensorFloat-32 where the precision is tf32.

    PyTorch's own default for convolutions is TensorFloat-32, which keeps 10 of 23 bits. The flags are those that
    torch.compile reads: it fails where PyTorch's newer ones, of single operations, are set.
    """
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value
