"""The optimiser and the learning rate of a training, as the settings say."""

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from aal.config.settings import TrainingSettings
from aal.training.cpu_speedups import hand_over_gradients, stored_kernels
from aal.training.heads import find_head

WARM_UP = 0.3  # share of the steps
MULTI_STEP = 0.1  # what a milestone multiplies the learning rate by

OptimizerState: TypeAlias = Mapping[str, Mapping[str, Tensor]]  # by the name of the parameter, then of what is kept


def decayed_kernels(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that weight decay is for: convolution and linear kernels, not the output layer's."""
    head = find_head(model)
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd))
    return [layer.weight for layer in layers if layer is not head and layer.weight.requires_grad]


def build_optimizer(model: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Returns Adam as in Keras, or SGD with momentum; decay is added to the gradient.

    The model must have its final device and memory layout by then; parameters that require no gradient are left out.
    """
    kernels = decayed_kernels(model)
    stored, rest = stored_kernels(kernels), _others(model, kernels)
    decay_of_rest = training.weight_decay if training.decay_all else 0.0
    groups = [
        {"params": stored, "weight_decay": training.weight_decay},
        {"params": rest, "weight_decay": decay_of_rest},
    ]
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, training.learning_rate, eps=1e-7, fused=True)  # Keras' epsilon
    else:
        nesterov = training.nesterov and training.momentum > 0
        optimizer = torch.optim.SGD(groups, training.learning_rate, training.momentum, nesterov=nesterov, fused=True)
    hand_over_gradients(optimizer, kernels, stored)
    return optimizer


def _others(model: nn.Module, kernels: list[nn.Parameter]) -> list[nn.Parameter]:
    known = {id(kernel) for kernel in kernels}
    return [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Returns what an optimiser keeps of each parameter, such as its momentum, on the CPU; see `resume_optimizer`."""
    return {
        name: {
            key: _turned(value, parameter, held, back=True).to("cpu", copy=True)
            for key, value in optimizer.state[held].items()
        }
        for name, parameter, held in _held(model, optimizer)
        if held in optimizer.state
    }


def resume_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Lets an optimiser go on from what another one of the same recipe kept of the same network, on whichever device.

    Args:
        model: that it is of.
        optimizer: as `build_optimizer` makes it.
        state: as `optimizer_state` returned it.
    """
    for name, parameter, held in _held(model, optimizer):
        for key, value in state.get(name, {}).items():
            turned = _turned(value, parameter, held)
            # A count of steps is a single number; all else is to have the memory layout of what is held.
            like = held if turned.dim() else turned.to(held.device)
            optimizer.state[held][key] = torch.empty_like(like).copy_(turned)


def _held(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Yields name and parameter, and what the optimiser holds for it, in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kernels = decayed_kernels(model)
    held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    for parameter, tensor in zip([*kernels, *_others(model, kernels)], held, strict=True):
        yield names[id(parameter)], parameter, tensor


def _turned(value: Tensor, parameter: nn.Parameter, held: Tensor, back: bool = False) -> Tensor:
    """Turns what is kept of a stored kernel (see `stored_kernels`), from the shape of the parameter or back to it."""
    if parameter is held or value.dim() != 4:
        return value
    return value.permute(0, 3, 1, 2) if back else value.permute(0, 2, 3, 1)


def one_cycle(step: int, steps: int) -> float:
    """Returns the learning rate of a step as a share of its peak: straight up, then straight down to almost nothing.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    peak = math.ceil(WARM_UP * steps)
    return min((step + 1) / peak, (steps - step) / (steps - peak + 1))


def build_schedule(
    optimizer: torch.optim.Optimizer, training: TrainingSettings, steps: int, epochs_before: int = 0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Returns the schedule of the learning rate, to be stepped after each of `steps` steps.

    Args:
        optimizer: whose rate it is.
        training: the recipe.
        steps: of the whole training.
        epochs_before: of earlier trainings that this one goes on from; the milestones of multi_step count them.
    """

    def factor(step: int) -> float:
        if training.schedule == "one_cycle":
            return one_cycle(step, steps)
        epoch = epochs_before + step * training.epochs // steps
        passed = sum(milestone <= epoch for milestone in training.milestones)
        return MULTI_STEP**passed if training.schedule == "multi_step" else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
