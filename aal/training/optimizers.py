"""The optimiser and the learning rate of a training, as the settings say."""

import math

import torch
from torch import nn

from aal.config.settings import TrainingSettings
from aal.training.cpu_speedups import hand_over_gradients, stored_kernels
from aal.training.heads import find_head

WARM_UP = 0.3  # share of the steps


def decayed_kernels(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that weight decay is for: convolution and linear kernels, not the output layer's."""
    head = find_head(model)
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd))
    return [layer.weight for layer in layers if layer is not head and layer.weight.requires_grad]


def build_optimizer(model: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Returns Adam as in Keras, or SGD with Nesterov momentum; decay is added to the gradient.

    The model must have its final device and memory layout by then; parameters that require no gradient are left out.
    """
    kernels = decayed_kernels(model)
    known = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
    stored = stored_kernels(kernels)
    groups = [{"params": stored, "weight_decay": training.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, training.learning_rate, eps=1e-7, fused=True)  # Keras' epsilon
    else:
        nesterov = training.momentum > 0
        optimizer = torch.optim.SGD(groups, training.learning_rate, training.momentum, nesterov=nesterov, fused=True)
    hand_over_gradients(optimizer, kernels, stored)
    return optimizer


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
