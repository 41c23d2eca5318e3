"""The output layer of any network: its last linear layer, whose inputs are the embeddings of the images."""

from torch import nn


def find_head(model: nn.Module) -> nn.Linear | None:
    """Returns the last linear layer, in the order of `model.modules()`; None where there is none."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else None


def freeze_all_but_head(model: nn.Module) -> None:
    """Lets only the output layer be trained."""
    head = find_head(model)
    model.requires_grad_(False)
    if head is not None:
        head.requires_grad_(True)


def set_training_mode(model: nn.Module, *, freeze: bool) -> None:
    """Puts a network into training mode; of a frozen one only the output layer, so that no statistics change."""
    model.train(not freeze)
    head = find_head(model)
    if freeze and head is not None:
        head.train()
