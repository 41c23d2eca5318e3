"""Learning a model from labelled images, and scoring images with it: plain functions, no processes, no waiting.

A model has two parts, `features` and `head`, as in models.py.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.config.settings import TrainingSettings
from aal.training.acceleration import compiled, folded
from aal.training.devices import autocast
from aal.training.images import Ids, ImageBank, Normalisation, Pixels, augment
from aal.training.optimizers import build_optimizer, build_schedule

PIXELS_SCORED_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}  # the images of a batch together; more is not faster

ADVICE = "put fewer roles on it (devices), or use a smaller width or training.batch_size"


@dataclass(frozen=True)
class Learned:
    """A trained model.

    Attributes:
        state_dict: weights of the best epoch, float32, on the CPU.
        epoch: the best one, from 1.
        val_accuracy: its accuracy; None without validation images.
        history: an entry an epoch: epoch, loss (mean over its steps), val_accuracy (None where not validated).
    """

    state_dict: dict[str, Tensor]
    epoch: int
    val_accuracy: float | None
    history: list[dict[str, Any]]


def learn(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    labels: Ids,
    validation_ids: Ids,
    validation_labels: Ids,
    *,
    training: TrainingSettings,
    normalisation: Normalisation,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Learned:
    """Trains a model on the bank's device; the same seed on the same CPU gives the same weights.

    Args:
        model: with its initial weights; it is trained in place and ends with those of the best epoch.
        bank: the images.
        ids: (n,) of the labelled images, at least one.
        labels: (n,) of these.
        validation_ids: (v,) of the images that choose the epoch; without any it is the last.
        validation_labels: (v,) of these.
        training: how.
        normalisation: of the pixels.
        seed: of order, augmentation and dropout; the process's own random numbers are left as they are.
        progress: called before each batch; what it raises ends the training.
    """
    device = bank.device
    model.to(device, memory_format=torch.channels_last if training.channels_last else torch.contiguous_format)
    labelled = torch.as_tensor(ids, device=device), torch.as_tensor(labels, device=device)
    pixels = Pixels(normalisation, device, training.channels_last)
    network = compiled(model, device) if training.compile else model
    optimizer = build_optimizer(model, training)
    schedule = build_schedule(optimizer, training, training.epochs * _shape(len(ids), training)[0])
    first = min(training.validate_after + 1, training.epochs) if len(validation_ids) else training.epochs
    best: Learned | None = None
    history: list[dict[str, Any]] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(1, training.epochs + 1):
            batches = _batches(bank, *labelled, training, pixels)
            loss = _epoch(network, batches, optimizer, schedule, training.precision, progress)
            accuracy = None
            if epoch >= first and len(validation_ids):
                logits = predict(
                    folded(model),
                    bank,
                    validation_ids,
                    normalisation=normalisation,
                    precision=training.precision,
                    progress=progress,
                )
                accuracy = (logits.argmax(1) == torch.as_tensor(validation_labels)).float().mean().item()
            history.append({"epoch": epoch, "loss": loss, "val_accuracy": accuracy})
            if epoch >= first and (best is None or accuracy is None or accuracy >= (best.val_accuracy or 0.0)):
                best = Learned(_weights(model), epoch, accuracy, history)
    assert best is not None  # the last epoch is always looked at
    model.load_state_dict(best.state_dict)
    return best


def _epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    precision: str,
    progress: Callable[[], None],
) -> float:
    """Returns the mean loss, which the device is asked for only once, at the end."""
    losses = []
    model.train()
    for images, labels in batches:
        progress()
        with autocast(images.device, precision):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


def _shape(number: int, training: TrainingSettings) -> tuple[int, int]:
    """Steps of an epoch and images of a step; two images at least, since one has no variance for batch norm."""
    size = max(2, min(training.batch_size, number))
    return math.ceil(number / size), size


def images_of_training(number: int, training: TrainingSettings) -> tuple[int, int]:
    """Returns how many images a training on `number` labels learns from in all epochs, and how often it validates."""
    steps, size = _shape(number, training)
    return training.epochs * steps * size, training.epochs - min(training.validate_after, training.epochs - 1)


def _batches(
    bank: ImageBank, ids: Tensor, labels: Tensor, training: TrainingSettings, pixels: Pixels
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in a new order; all batches have one size, the last is filled up from the start of the order."""
    steps, size = _shape(len(ids), training)
    order = torch.randperm(len(ids), device=ids.device)
    for chosen in order[torch.arange(steps * size, device=ids.device) % len(ids)].split(size):
        images = bank.batch(ids[chosen])
        if training.crop_padding or training.flip:
            images = augment(images, crop_padding=training.crop_padding, flip=training.flip)
        yield pixels(images), labels[chosen]


def predict(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    *,
    normalisation: Normalisation,
    precision: str = "float32",
    batch_size: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns the logits of images, float32 (n, classes) on the CPU.

    Args:
        model: on the bank's device, best as `aal.faster.folded` gives it; it is left in evaluation mode.
        bank: the images.
        ids: (n,) of those to score; may be none.
        normalisation: of the pixels, as in training.
        precision: as in the training settings.
        batch_size: images at a time; None for what the device is fast with, and memory does not depend on.
        progress: called before each batch; what it raises ends the work.

    Raises:
        UserError: the device has no memory left for a single image; before that, the batches are halved.
    """
    model.eval()
    pixels = Pixels(normalisation, bank.device)
    batch_size = batch_size or max(1, PIXELS_SCORED_AT_ONCE[bank.device.type] // bank.pixels)
    wanted = torch.as_tensor(ids, device=bank.device)
    scores: Tensor | None = None  # filled batch by batch: many small tensors among the large ones scatter the memory
    done = 0
    with torch.inference_mode(), autocast(bank.device, precision):
        while scores is None or done < len(wanted):
            progress()
            try:
                logits = model(pixels(bank.batch(wanted[done : done + batch_size])))
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise UserError(f"{bank.device}: has no memory left for one image; {ADVICE}") from None
                batch_size //= 2  # the result is the same
                torch.cuda.empty_cache()
                continue
            if scores is None:
                scores = torch.empty(len(wanted), logits.shape[1], device=bank.device)
            scores[done : done + len(logits)] = logits
            done += len(logits)
        return scores.cpu()
