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


def weights_of(name: str) -> tuple[str, str]:
    """Returns the name of a network of torchvision and that of its weights.

    Args:
        name: `torchvision:resnet18`, whose default weights are meant, or weights as `ResNet18_Weights.IMAGENET1K_V1`.

    Raises:
        UserError: torchvision has no such network, or no weights of it.
    """
    prefix, _, network = name.partition(":")
    if prefix == "torchvision":
        from_library(network)  # reports a name that there is not
        return network, str(torchvision.models.get_model_weights(network).DEFAULT)
    wanted = name.partition(".")[0]
    for known in torchvision.models.list_models(module=torchvision.models):
        if torchvision.models.get_model_weights(known).__name__ == wanted:
            return known, name
    raise UserError(f"torchvision has no weights {name}; see docs.pytorch.org/vision/models")
