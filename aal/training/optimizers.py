"""The optimiser and the learning rate of a training, as the settings say."""

import math

import torch
from torch import Tensor, nn

from aal.config.settings import TrainingSettings

WARM_UP = 0.3  # share of the steps


def decayed(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that weight decay is for: convolution and linear kernels, not the output layer's."""
    return [layer.weight for layer in model.features.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def build_optimizer(model: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Returns Adam as in Keras, or SGD with Nesterov momentum; decay is added to the gradient.

    The model must have its final device and memory layout by then.
    """
    kernels = decayed(model)
    known = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    stored = [_as_stored(kernel) for kernel in kernels]
    groups = [{"params": stored, "weight_decay": training.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, training.learning_rate, eps=1e-7, fused=True)  # Keras' epsilon
    else:
        nesterov = training.momentum > 0
        optimizer = torch.optim.SGD(groups, training.learning_rate, training.momentum, nesterov=nesterov, fused=True)
    views = [(kernel, view) for kernel, view in zip(kernels, stored, strict=True) if view is not kernel]

    def hand_over(*_: object) -> None:
        for kernel, view in views:
            view.grad = None if kernel.grad is None else kernel.grad.permute(0, 2, 3, 1)
            kernel.grad = None

    if views:
        optimizer.register_step_pre_hook(hand_over)
    return optimizer


def _as_stored(kernel: nn.Parameter) -> Tensor:
    """Returns a kernel as it lies in memory: on a CPU the fused step copies all that is not contiguous, and back."""
    if kernel.device.type != "cpu" or kernel.dim() != 4 or kernel.is_contiguous():
        return kernel
    return kernel.detach().permute(0, 2, 3, 1)


def one_cycle(step: int, steps: int) -> float:
    """Returns the learning rate of a step as a share of its peak: straight up, then straight down to almost nothing.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    peak = math.ceil(WARM_UP * steps)
    return min((step + 1) / peak, (steps - step) / (steps - peak + 1))


def build_schedule(
    optimizer: torch.optim.Optimizer, training: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Returns the schedule of the learning rate, to be stepped after each of `steps` steps."""

    def factor(step: int) -> float:
        return one_cycle(step, steps) if training.schedule == "one_cycle" else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
