"""What the steps of a training minimise: the mean cross entropy, or what a trainer puts in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from aal.training.devices import trains_in_bf16
from aal.training.images import Pixels

if TYPE_CHECKING:
    from aal.training.trainer import TrainingTask


class Objective:
    """The mean cross entropy of a batch; a trainer may name a subclass as `TrainingTask.objective`.

    Args:
        model: on its device, with the weights that the training begins with.
        task: of the training.
    """

    def __init__(self, model: nn.Module, task: TrainingTask) -> None:
        training, self.device = task.training, task.bank.device
        self.model = model
        self.pixels = Pixels(task.normalisation, self.device, task.layout(model))
        self._in_bf16 = trains_in_bf16(model, self.device, training.precision)

    def logits(self, pixels: Tensor, model: nn.Module | None = None) -> Tensor:
        """Returns what the model, or another one, gives for normalised pixels (n, C, H, W): (n, classes) float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bf16):
            return (model or self.model)(pixels).float()

    def drawn(self) -> tuple[Tensor, ...]:
        """Returns what a step takes besides its batch; it is not compiled, and no gradient goes through it."""
        return ()

    def loss(self, images: Tensor, labels: Tensor, *drawn: Tensor) -> Tensor:
        """The forward pass of a step, from uint8 images to the mean loss: what is compiled.

        Args:
            images: (n, H, W, C) of the batch.
            labels: (n,) of these.
            *drawn: what `drawn` returned for the step.
        """
        return F.cross_entropy(self.logits(self.pixels(images)), labels)
