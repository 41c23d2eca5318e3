"""What a trainer is given and gives back."""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from aal import __version__
from aal.config.errors import UserError
from aal.config.settings import Settings, TrainingSettings
from aal.coordination.messages import TrainingJob
from aal.storage.model_files import load_model, save_with_retry
from aal.training.images import Ids, ImageBank, Normalisation
from aal.training.inference import ADVICE
from aal.training.networks import Architecture


def _no_ids() -> np.ndarray:
    return np.array([], np.int64)


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """What a training needs besides the network.

    Attributes:
        bank: the images, on the device to train on.
        ids: (n,) of the labelled images, at least one.
        labels: (n,) of these.
        training: the recipe.
        normalisation: of the pixels.
        seed: of order, augmentation and dropout.
        validation_ids: (v,) of the images that choose the epoch; without any it is the last.
        validation_labels: (v,) of these.
        freeze: whether only the output layer is trained.
        heartbeat: called before each batch; what it raises ends the training.
        job: that asks for the training; None outside a run.
    """

    bank: ImageBank
    ids: Ids
    labels: Ids
    training: TrainingSettings
    normalisation: Normalisation
    seed: int
    validation_ids: Ids = field(default_factory=_no_ids)
    validation_labels: Ids = field(default_factory=_no_ids)
    freeze: bool = False
    heartbeat: Callable[[], None] = lambda: None
    job: TrainingJob | None = None


@dataclass(frozen=True)
class FittedModel:
    """What a training gives.

    Attributes:
        state_dict: weights of the best epoch, float32, on the CPU.
        epoch: the best one, from 1.
        val_accuracy: its accuracy; None without validation images.
        history: an entry an epoch: epoch, loss (mean over its steps), val_accuracy (None where not validated).
    """

    state_dict: dict[str, Tensor]
    epoch: int
    val_accuracy: float | None
    history: list[dict[str, Any]]


class Trainer(Protocol):
    """Computes what a training job of one kind asks for; `@TRAINERS.register(kind)` registers it."""

    def __call__(self, model: nn.Module, task: TrainingTask) -> FittedModel:
        """Trains a model in place, which has its initial weights. Further typed parameters are `trainer_options`."""
        ...


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the weights on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }


def training_fingerprint(
    settings: Settings, job: TrainingJob, architecture: Architecture, ids: np.ndarray, labels: np.ndarray
) -> str:
    """Returns a digest of all that decides what a training gives; the split and the images are the run's."""
    start = job.start and job.start.path
    asked = (job.number, job.kind, job.target, job.owner, start)
    s = settings
    how = (s.seed, architecture, s.pretrained, s.freeze, s.training, s.eval_precision)
    text = repr((asked, how, __version__, torch.__version__))
    return hashlib.blake2b(text.encode() + ids.tobytes() + labels.tobytes(), digest_size=16).hexdigest()


def reuse_or_train(
    path: pathlib.Path, fingerprint: str, train: Callable[[], dict[str, Any]], heartbeat: Callable[[], None]
) -> dict[str, Any]:
    """Returns what a model file of this fingerprint holds: of the file that is there, or of one that is made now.

    It is there when its server died before it could publish, or when a simulated run is repeated up to where it broke
    off.

    Args:
        path: of the model file.
        fingerprint: of the training.
        train: trains and returns what the file is to hold, see `aal.storage.model_files.model_payload`.
        heartbeat: called while the disk does not take the file; what it raises ends the attempts.

    Raises:
        UserError: the device has no memory left for the training.
        RunFailed: the disk did not take the file.
    """
    if path.exists():
        with contextlib.suppress(UserError):  # a damaged file is made again
            known = load_model(path)
            if known.get("fingerprint") == fingerprint:
                return known
    try:
        payload = {**train(), "fingerprint": fingerprint}
    except torch.OutOfMemoryError as error:
        raise UserError(f"a GPU has no memory left for a training ({error}); {ADVICE}") from None
    save_with_retry(path, payload, heartbeat)
    return payload
