"""Scoring images with a model: plain functions, no processes, no waiting."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.training.devices import (
    ADVICE,
    arithmetic,
    is_out_of_memory,
    release_cached_memory,
)
from aal.training.images import Ids, ImageBank, Normalisation, Pixels

PIXELS_SCORED_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}  # the images of a batch together; more is not faster
SIZES_COST_ON = ("cuda",)  # where cuDNN looks for its fastest kernels again for each size of a batch
SMALLEST_SIZE = 64


def predict(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    *,
    normalisation: Normalisation,
    precision: str = "float32",
    batch_size: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns the logits of images, float32 (n, classes) on the CPU.

    Args:
        model: on the bank's device, best as `fuse_batch_norm` gives it; it is left in evaluation mode.
        bank: the images.
        ids: (n,) of those to score; may be none.
        normalisation: of the pixels, as in training.
        precision: as in the training settings.
        batch_size: images at a time; None for what the device is fast with, and memory does not depend on.
        heartbeat: called before each batch; what it raises ends the work.

    Raises:
        UserError: the device has no memory left for a single image; before that, the batches are halved.
    """
    model.eval()
    (logits,) = run_batches(lambda images: (model(images),), bank, ids, normalisation, precision, batch_size, heartbeat)
    return logits


def run_batches(
    network: Callable[[Tensor], tuple[Tensor, ...]],
    bank: ImageBank,
    ids: Ids,
    normalisation: Normalisation,
    precision: str,
    batch_size: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[Tensor]:
    """Returns the columns that a function of images gives, each float32 (n, any) on the CPU, batch by batch.

    Args:
        network: from pixels (b, C, H, W) to columns (b, any).
        bank: the images.
        ids: (n,) of those to score.
        normalisation: of the pixels, as in training.
        precision: as in the training settings.
        batch_size: images at a time; None for what the device is fast with.
        heartbeat: called before each batch; what it raises ends the work.

    Raises:
        UserError: as `predict`.
    """
    pixels = Pixels(normalisation, bank.device)
    batch_size = batch_size or max(1, PIXELS_SCORED_AT_ONCE[bank.device.type] // bank.pixels)
    bank.expect(ids)
    wanted = torch.as_tensor(ids, device=bank.device)
    columns: list[Tensor] = []  # filled batch by batch: many small tensors among the large ones scatter the memory
    done = 0
    with torch.inference_mode(), arithmetic(bank.device, precision):
        while not columns or done < len(wanted):
            heartbeat()
            found: tuple[Tensor, ...] = ()
            batch = wanted[done : done + batch_size]
            try:
                found = network(pixels(bank.batch(_padded(batch, batch_size))))
            except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
                if not is_out_of_memory(error):
                    raise
            if not found:
                if batch_size == 1:
                    raise UserError(f"{bank.device}: has no memory left for one image; {ADVICE}")
                batch_size //= 2  # the result is the same
                release_cached_memory()
                continue
            columns = columns or [torch.empty(len(wanted), one.shape[1], device=bank.device) for one in found]
            for column, part in zip(columns, found, strict=True):
                column[done : done + len(batch)] = part[: len(batch)]
            done += len(batch)
    return [column.cpu() for column in columns]


def _padded(ids: Tensor, most: int) -> Tensor:
    """Returns the ids of a last batch, repeated up to a power of two, where every new size of a batch is expensive."""
    if len(ids) == 0 or len(ids) == most or ids.device.type not in SIZES_COST_ON:
        return ids
    size = min(most, max(SMALLEST_SIZE, 1 << (len(ids) - 1).bit_length()))
    return ids[torch.arange(size, device=ids.device) % len(ids)]
