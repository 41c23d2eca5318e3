"""What ours is compared with: the plain loop that a user would write instead, and bare passes, which are the limit."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from aal.app.data import ImageSet
from aal.config.settings import TrainingSettings
from aal.training.acceleration import LossFunction, compile_loss, fuse_batch_norm
from aal.training.devices import arithmetic, uses_bf16
from aal.training.inference import PIXELS_SCORED_AT_ONCE
from aal.training.optimizers import build_optimizer, build_schedule
from bench.rows import rate_of

SCORED_AT_ONCE = 256
SECONDS = 5.0  # of a measurement of bare passes


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
    """A float32 network with PyTorch's own dropout, torchvision's transforms, a DataLoader, one loop."""

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
                found = self.accuracy(validation) if len(validation) else 0.0
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


class Roofline:
    """The bare passes of a network in its best data type and layout over one resident batch of (3, 32, 32) images."""

    def __init__(self, model: nn.Module, device: torch.device, number: int | None = None) -> None:
        number = number or PIXELS_SCORED_AT_ONCE[device.type] // 32**2  # else as many as a worker scores at once
        self._device, self._in_bf16 = device, uses_bf16(device, "auto")
        self._model = model.to(device, memory_format=torch.channels_last)
        self._images = torch.randn(number, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
        self._labels = torch.randint(0, 10, (number,), device=device)
        self._fast_loss: LossFunction = self._loss
        self.is_compiled = False  # whether the compiled network is the faster, as its user has found

    def compile(self) -> float | None:
        """Compiles the network; returns the seconds of that and of the first step, None where PyTorch cannot."""
        started_at = time.perf_counter()
        self._model.train()
        loss = self._loss
        self._fast_loss = compile_loss(loss, self._model, self._images, self._labels)
        if self._fast_loss is loss:
            return None
        return time.perf_counter() - started_at

    def train_rate(self, seconds: float | None = None, is_compiled: bool = False) -> float:
        """Returns images a second, forward and backward."""
        loss = self._fast_loss if is_compiled else self._loss
        self._model.train()

        def step() -> None:
            self._model.zero_grad()
            loss(self._images, self._labels).backward()

        return self._rate(step, seconds)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, self._in_bf16):
            logits = self._model(images)
        return F.cross_entropy(logits.float(), labels)

    def score_rate(self) -> float:
        """Returns images a second, forward only, batch norms fused into the convolutions."""
        network = fuse_batch_norm(self._model.eval())
        with torch.inference_mode(), arithmetic(self._device, "auto"):
            return self._rate(lambda: network(self._images))

    def _rate(self, act: Callable[[], object], seconds: float | None = None) -> float:
        on_gpu = self._device.type == "cuda"

        def passes(number: int) -> None:
            for _ in range(number):
                act()
            if on_gpu:
                torch.cuda.synchronize(self._device)  # else the clock would run ahead of a GPU

        passes(2)  # to warm up; the first one compiles
        at_once = 10 if on_gpu else 1
        return rate_of(at_once * len(self._images), lambda: passes(at_once), SECONDS if seconds is None else seconds)


def matmul_rate(device: torch.device, side: int = 8192) -> float:
    """Returns the floating-point operations a second of a large product of bfloat16 matrices: what a device can do."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        for _ in range(10):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    return rate_of(10 * 2 * side**3, multiply, seconds=1.0)


def training_flops(model: nn.Module) -> float:
    """Returns the floating-point operations of a training step, forward and backward, for an image of (3, 32, 32)."""
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.zeros(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 2
