"""What a user would write instead: a float32 network, torchvision's transforms, a DataLoader, one loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from aal.app.data import ImageSet
from aal.config.settings import TrainingSettings
from aal.training.optimizers import build_optimizer, build_schedule

SCORED_AT_ONCE = 256


class Images(Dataset[tuple[Tensor, int]]):
    """Chosen images of a set, one at a time."""

    def __init__(self, images: ImageSet, ids: np.ndarray, transform: Callable[[np.ndarray], Tensor]) -> None:
        self._images, self._ids, self._transform = images, ids, transform

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        row = int(self._ids[place])
        return self._transform(self._images.images[row]), int(self._images.labels[row])


def with_plain_dropout(model: nn.Module) -> nn.Module:
    """Gives a network of ours PyTorch's own dropout."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, nn.Dropout(child.p))
    return model


def to_pixels(normalisation: dict[str, list[float]]) -> list[Callable[[Any], Any]]:
    """Returns the transforms from an image to normalised numbers."""
    return [transforms.ToTensor(), transforms.Normalize(normalisation["mean"], normalisation["std"])]


def loader(images: ImageSet, ids: np.ndarray, steps: list[Callable[[Any], Any]], size: int, mix: bool) -> DataLoader:
    """Returns a DataLoader; on a CPU it has no processes of its own, which would fight for the cores."""
    processes = 8 if torch.cuda.is_available() else 0
    dataset = Images(images, ids, transforms.Compose(steps))
    return DataLoader(dataset, size, shuffle=mix, num_workers=processes, pin_memory=torch.cuda.is_available())


def train(
    model: nn.Module,
    images: ImageSet,
    ids: np.ndarray,
    *,
    training: TrainingSettings,
    normalisation: dict[str, list[float]],
    device: torch.device,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains with the same recipe, step by step as tutorials do, but with our optimiser, which is the faster.

    Args:
        model: with its initial weights.
        images: the set.
        ids: (n,) of those to learn from.
        training: the recipe; its precision and layout are left aside.
        normalisation: of the pixels.
        device: to train on.
        after_epoch: called with the number of each epoch, from 1.
    """
    model.to(device)
    crop = transforms.RandomCrop(images.images.shape[1], padding=training.crop_padding, padding_mode="reflect")
    steps = [transforms.ToPILImage(), crop, transforms.RandomHorizontalFlip(), *to_pixels(normalisation)]
    batches = loader(images, ids, steps, training.batch_size, mix=True)
    optimizer = build_optimizer(model, training)
    schedule = build_schedule(optimizer, training, training.epochs * len(batches))
    for epoch in range(1, training.epochs + 1):
        model.train()
        total = 0.0
        for pixels, labels in batches:
            pixels, labels = pixels.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        after_epoch(epoch)


def probabilities(
    model: nn.Module, images: ImageSet, ids: np.ndarray, normalisation: dict[str, list[float]], device: torch.device
) -> np.ndarray:
    """Returns the class probabilities of images, (n, classes)."""
    model.eval().to(device)
    found = []
    with torch.no_grad():
        for pixels, _ in loader(images, ids, to_pixels(normalisation), SCORED_AT_ONCE, mix=False):
            found.append(torch.softmax(model(pixels.to(device)), dim=1).cpu())
    return torch.cat(found).numpy()


def accuracy(
    model: nn.Module, images: ImageSet, ids: np.ndarray, normalisation: dict[str, list[float]], device: torch.device
) -> float:
    """Returns the share of images that a model tells right."""
    guesses = probabilities(model, images, ids, normalisation, device).argmax(1)
    return float((guesses == images.labels[ids]).mean())
