"""What can be known of a run's networks before it starts, by building them once."""

import torch
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.training.heads import find_head
from aal.training.networks import Architecture, architecture_of
from aal.training.pretrained import load_matching, normalisation_for, read_pretrained


def check_networks(settings: Settings, *, classes: int, channels: int, image_size: int) -> None:
    """Checks before a run what can be known by building its networks and showing them two black images.

    Raises:
        UserError: with a line for each network that cannot be built, gives no logits, or takes nothing of `pretrained`.
    """
    problems: list[str] = []
    for one in settings.networks:
        name = one.model
        try:
            architecture = architecture_of(settings, one, classes=classes, channels=channels, image_size=image_size)
            network = architecture.build(seed=0)
            _check_logits(network, architecture)
            if settings.freeze and find_head(network) is None:
                problems.append(f"freeze: {name} has no linear layer, which would be trained")
            if settings.pretrained is not None:
                pretrained = read_pretrained(settings.pretrained)
                load_matching(network, pretrained)
                normalisation_for(pretrained, channels)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))


def _check_logits(network: nn.Module, architecture: Architecture) -> None:
    side, name = architecture.image_size, architecture.name
    images = torch.zeros(2, architecture.channels, side, side)
    for is_training in (True, False):
        try:
            with torch.no_grad():
                logits = network.train(is_training)(images)
        except Exception as error:  # whatever a user's network raises
            shape = f"{architecture.channels} x {side} x {side}"
            reason = str(error).split("\n")[0] or type(error).__name__
            raise UserError(f"models: {name}: fails on images of {shape}: {reason}") from None
        if not isinstance(logits, Tensor):
            when = "in training" if is_training else "in evaluation"
            raise UserError(f"models: {name}: gives {type(logits).__name__} {when}, not logits (n, classes)")
        if logits.shape != (2, architecture.classes):
            found, wanted = tuple(logits.shape), (2, architecture.classes)
            raise UserError(f"models: {name}: gives logits of shape {found} for 2 images, not {wanted}")
