"""Weights that a training starts from: a file, or weights of torchvision by their name."""

import functools
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.storage.model_files import load_model

TORCHVISION_WEIGHTS = re.compile(r"^\w+_Weights\.\w+$")


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from.

    Attributes:
        name: as in the settings.
        state_dict: tensors by the names that their network gave them.
        normalisation: mean and std of each channel that they were trained with; None where it is not known.
    """

    name: str
    state_dict: Mapping[str, Tensor]
    normalisation: Mapping[str, list[float]] | None


@functools.lru_cache(maxsize=1)
def read_pretrained(name: str) -> Pretrained:
    """Reads the weights that a name stands for.

    Args:
        name: of a file, one of our model files or a plain state dict; or such as `ResNet18_Weights.IMAGENET1K_V1`,
            which torchvision downloads where it did not before.

    Raises:
        UserError: they are not there, cannot be downloaded, or are no weights.
    """
    return _of_torchvision(name) if TORCHVISION_WEIGHTS.match(name) else _of_file(name)


def _of_torchvision(name: str) -> Pretrained:
    from torchvision.models import get_weight  # only where it is asked for

    try:
        weights = get_weight(name)
    except (AttributeError, KeyError, ValueError):
        raise UserError(f"pretrained: torchvision has no weights {name}; see docs.pytorch.org/vision/models") from None
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        place = pathlib.Path(torch.hub.get_dir()) / "checkpoints"
        reason = str(error).split("\n")[0]
        raise UserError(
            f"pretrained: {weights.url} cannot be downloaded: {reason}; put that file into {place}"
        ) from None
    shown = weights.transforms()
    return Pretrained(name, state, {"mean": list(shown.mean), "std": list(shown.std)})


def _of_file(name: str) -> Pretrained:
    path = pathlib.Path(name).expanduser()
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"pretrained: {path}: {error.strerror or error}") from None
    except Exception:  # PyTorch, zipfile and pickle raise a dozen kinds for damaged and for hostile files
        raise UserError(f"pretrained: {path}: holds no weights, or is damaged; nothing in it was run") from None
    if isinstance(content, dict) and {"format", "architecture", "state_dict"} <= content.keys():
        payload = load_model(path)
        return Pretrained(name, payload["state_dict"], payload["normalisation"])
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"pretrained: {path}: must hold a state dict, tensors by their names")
    return Pretrained(name, state, None)


def load_matching(network: nn.Module, pretrained: Pretrained) -> list[str]:
    """Loads every tensor whose name and shape match; the head, for one, may have other classes.

    Returns:
        The names of the network's tensors that were not loaded.

    Raises:
        UserError: nothing matches.
    """
    own = network.state_dict()
    fitting = {
        key: value for key, value in pretrained.state_dict.items() if key in own and own[key].shape == value.shape
    }
    if not fitting:
        wanted, there = next(iter(own), "nothing"), next(iter(pretrained.state_dict), "nothing")
        raise UserError(
            f"pretrained: {pretrained.name}: nothing in it fits the network, whose tensors begin with {wanted}; "
            f"those of the file with {there}"
        )
    network.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting]


def normalisation_for(pretrained: Pretrained, channels: int) -> dict[str, list[float]] | None:
    """Returns the normalisation that belongs to the weights, for images of so many channels; None where none is known.

    Raises:
        UserError: it is for another number of channels.
    """
    if pretrained.normalisation is None:
        return None
    known = {key: [float(value) for value in pretrained.normalisation[key]] for key in ("mean", "std")}
    if channels == 1:
        return {key: [sum(values) / len(values)] for key, values in known.items()}
    if len(known["mean"]) != channels:
        raise UserError(
            f"pretrained: {pretrained.name}: is for {len(known['mean'])} channels, the images have {channels}"
        )
    return known
