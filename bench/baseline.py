"""What a user would write instead: a float32 network, torchvision's transforms, a DataLoader, one loop."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Images(Dataset[tuple[Tensor, int]]):
    """Chosen images of a set, one at a time."""

    images: ImageSet
    ids: np.ndarray
    transform: Callable[[np.ndarray], Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        row = int(self.ids[place])
        return self.transform(self.images.images[row]), int(self.images.labels[row])


@dataclass
class Baseline:
    """A network with PyTorch's own dropout in the place of ours, and the images that it learns from and scores."""

    model: nn.Module
    images: ImageSet
    normalisation: dict[str, list[float]]
    device: torch.device

    def __post_init__(self) -> None:
        for parent in list(self.model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(parent, name, nn.Dropout(child.p))
        self.model.to(self.device)

    def _loader(self, ids: np.ndarray, size: int, augment: list[Callable[[Any], Any]], mix: bool) -> DataLoader:
        """Returns a DataLoader; on a CPU it has no processes of its own, which would fight for the cores."""
        gpu, pixels = torch.cuda.is_available(), transforms.Normalize(**self.normalisation)
        dataset = _Images(self.images, ids, transforms.Compose([*augment, transforms.ToTensor(), pixels]))
        processes: dict[str, Any] = {"num_workers": 8, "persistent_workers": True, "pin_memory": True} if gpu else {}
        return DataLoader(dataset, size, shuffle=mix, **processes)

    def train(self, ids: np.ndarray, validation: np.ndarray, training: TrainingSettings) -> None:
        """Trains with the same recipe, step by step as tutorials do, but with our optimiser, which is the faster.

        Precision and layout of the recipe are left aside; of the epochs that it validates, the best one is kept.
        """
        crop = transforms.RandomCrop(self.images.images.shape[1], training.crop_padding, padding_mode="reflect")
        augment = [transforms.ToPILImage(), crop, transforms.RandomHorizontalFlip()]
        batches = self._loader(ids, training.batch_size, augment, mix=True)
        optimizer = build_optimizer(self.model, training)
        schedule = build_schedule(optimizer, training, training.epochs * len(batches))
        best, weights = -1.0, self.model.state_dict()
        for epoch in range(training.epochs):
            self.model.train()
            total = 0.0
            for pixels, labels in batches:
                pixels, labels = pixels.to(self.device), labels.to(self.device)
                optimizer.zero_grad()
                loss = F.cross_entropy(self.model(pixels), labels)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            if epoch >= min(training.validate_after, training.epochs - 1):
                found = self.accuracy(validation)
                if found >= best:
                    best, weights = found, copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(weights)

    def probabilities(self, ids: np.ndarray) -> Tensor:
        """Returns the class probabilities of images, (n, classes) on the CPU."""
        self.model.eval()
        with torch.no_grad():
            batches = self._loader(ids, SCORED_AT_ONCE, [], mix=False)
            return torch.cat([self.model(pixels.to(self.device)).softmax(dim=1).cpu() for pixels, _ in batches])

    def accuracy(self, ids: np.ndarray) -> float:
        """Returns the share of images whose class is right."""
        return float((self.probabilities(ids).argmax(1).numpy() == self.images.labels[ids]).mean())

    def choose(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Returns the ids of the largest entropies."""
        return ids[torch.special.entr(self.probabilities(ids)).sum(dim=1).topk(count).indices.numpy()]
