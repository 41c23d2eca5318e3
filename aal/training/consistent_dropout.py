"""Dropout that is the same for all images of a pass, so that the pass is one network drawn at random."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from aal.config.errors import UserError

PLAIN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # which multiply with a mask


@contextlib.contextmanager
def sampled_network(model: nn.Module) -> Iterator[None]:
    """In it, a network in evaluation mode drops the units of one draw, for whatever images it is given.

    Each layer draws its mask for the first images that reach it (Kirsch et al., 2019, section 3.3: consistent
    Monte-Carlo dropout).

    Raises:
        UserError: the network has no dropout.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, PLAIN) and layer.p]
    if not layers:
        raise UserError("query_strategy: Monte-Carlo passes need a network with dropout, such as vgg16")
    masks: dict[nn.Module, Tensor] = {}

    def drop(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer not in masks:
            layer.train()
            masks[layer] = layer.forward(torch.ones_like(output[:1]))
            layer.eval()
        return output * masks[layer]

    hooks = [layer.register_forward_hook(drop) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
