"""Features of images that a trained network computes: the inputs of its output layer."""

import hashlib
import pathlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.storage.atomic import TEMPORARY, sync
from aal.storage.model_files import load_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import resolve_device
from aal.training.heads import find_head
from aal.training.images import ImageBank, Normalisation
from aal.training.inference import run_batches
from aal.training.networks import restore_model
from aal.training.pretrained import normalisation_for, read_pretrained
from aal.training.process import set_up_alone
from aal.training.scorer import embeddings_of
from aal.training.torchvision_networks import from_library, weights_of

CHUNK = 4096  # images computed between two writes


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A trained network that computes features.

    Attributes:
        model: with its weights, on the CPU.
        normalisation: of the pixels, as in its training.
        digest: of what decides its outputs.
    """

    model: nn.Module
    normalisation: Normalisation
    digest: str


def read_network(name: str, trusted: Collection[str], shape: tuple[int, ...]) -> FeatureNetwork:
    """Returns the network that a name stands for.

    Args:
        name: a model file of a run; `torchvision:resnet18`, whose newest weights are taken; or such weights by their
            name, as `ResNet18_Weights.IMAGENET1K_V1`. They are downloaded where they were not before.
        trusted: the users' own networks that may be imported for a model file.
        shape: (N, H, W, C) of the images.

    Raises:
        UserError: there is no such network, or it does not take the images.
    """
    try:
        found = _of_file(name, trusted, shape) if name.endswith(".pt") else _of_torchvision(name, shape)
    except UserError as error:
        raise UserError(*(f"features: {problem.removeprefix('pretrained: ')}" for problem in error.problems)) from None
    if find_head(found.model) is None:
        raise UserError(f"features: {name}: has no linear layer, whose inputs would be the features")
    return found


def _of_file(name: str, trusted: Collection[str], shape: tuple[int, ...]) -> FeatureNetwork:
    path = pathlib.Path(name).expanduser()
    payload = load_model(path)
    architecture = payload["architecture"]
    wanted, there = (architecture["image_size"], architecture["channels"]), (shape[1], shape[3])
    if wanted != there:
        raise UserError(
            f"{name}: takes images of {wanted[0]} pixels a side and {wanted[1]} channels, and these have {there[0]} "
            f"and {there[1]}"
        )
    model = restore_model(payload, path, trusted)
    with path.open("rb") as file:
        content = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
    return FeatureNetwork(model, payload["normalisation"], content)


def _of_torchvision(name: str, shape: tuple[int, ...]) -> FeatureNetwork:
    network, weights = weights_of(name)
    pretrained = read_pretrained(weights)
    classes = list(pretrained.state_dict.values())[-1].shape[0]
    model = from_library(network)(classes, shape[3])
    try:
        model.load_state_dict(pretrained.state_dict)
    except RuntimeError:
        raise UserError(f"{weights}: do not fit torchvision:{network}") from None
    normalisation = normalisation_for(pretrained, shape[3])
    assert normalisation is not None
    return FeatureNetwork(model, normalisation, weights)


def write_features(path: pathlib.Path, network: FeatureNetwork, images: np.ndarray, device: str) -> None:
    """Computes the features of all images and writes them, whole or not at all.

    Args:
        path: of the .npy file, (N, d) float32.
        network: that computes them.
        images: (N, H, W, C) uint8.
        device: as in the settings.

    Raises:
        OSError: the file cannot be written.
        UserError: the network does not take the images.
    """
    where = resolve_device(device)
    set_up_alone()
    bank, model = ImageBank(images, where), fuse_batch_norm(network.model.to(where), inplace=True)
    temporary = path.with_name(TEMPORARY + path.name)
    with embeddings_of(model) as kept, temporary.open("wb") as file:

        def embedded(batch: Tensor) -> tuple[Tensor]:
            kept.clear()
            model(batch)
            return (kept[-1],)

        for start in range(0, len(images), CHUNK):
            ids = np.arange(start, min(start + CHUNK, len(images)))
            try:
                (found,) = run_batches(embedded, bank, ids, network.normalisation, "float32")
            except (RuntimeError, ValueError) as error:
                reason = str(error).split("\n")[0]
                raise UserError(f"features: the network fails on images of {images.shape[1:]}: {reason}") from None
            if start == 0:  # written, not mapped: on a full disk a map kills the process
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), found.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(found.numpy(), "<f4").data)
    sync(temporary)
    temporary.replace(path)
