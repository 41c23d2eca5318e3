"""The classification networks of torchvision, as `models: torchvision:resnet18`."""

import difflib
from collections.abc import Callable
from typing import Any

import torchvision
from torch import Tensor, nn

from aal.config.errors import UserError


def from_library(name: str) -> Callable[..., nn.Module]:
    """Returns the builder of a network of torchvision; its options are those of torchvision's own function.

    Images of one channel are shown to the network as red, green and blue alike, so that pretrained weights fit.

    Raises:
        UserError: torchvision has no such classification network.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean torchvision:{close[0]}?" if close else "; see torchvision.models.list_models()"
        raise UserError(f"models: torchvision:{name}: there is no such network in torchvision{hint}")

    def build(classes: int, channels: int, **options: Any) -> nn.Module:
        if channels not in (1, 3):
            raise UserError(f"models: torchvision:{name}: takes images of 1 or 3 channels, not {channels}")
        try:
            network = torchvision.models.get_model(name, num_classes=classes, **options)
        except (TypeError, ValueError) as error:
            raise UserError(f"model_options: torchvision:{name}: {error}") from None
        if channels == 1:
            network.register_forward_pre_hook(_as_rgb)
        return network

    return build


def _as_rgb(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].expand(-1, 3, -1, -1), *inputs[1:])
