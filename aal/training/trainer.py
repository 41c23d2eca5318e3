"""What a trainer is given and gives back."""

import contextlib
import hashlib
import logging
import pathlib
import time
from collections.abc import Callable, Mapping
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
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import (
    explained_memory_errors,
    is_out_of_memory,
    release_cached_memory,
    trains_in_channels_last,
)
from aal.training.images import Ids, ImageBank, Normalisation, augment
from aal.training.inference import predict
from aal.training.networks import Architecture
from aal.training.objective import Objective
from aal.training.optimizers import OptimizerState

MEMORY_TRIES, MEMORY_AGAIN_S = 3, 5.0  # of a training on a GPU whose memory others have taken

log = logging.getLogger("aal")


def _no_ids() -> np.ndarray:
    return np.array([], np.int64)


@dataclass(frozen=True, eq=False)
class Continuation:
    """What a training goes on from, and the next one from this: the rounds of a client within a cycle.

    Attributes:
        epochs: of the trainings so far.
        optimizer: what it kept of each parameter at their end, see `aal.training.optimizers.optimizer_state`.
        statistics: of the batch norms at their end, for a client that goes on with its own; none for others.
    """

    epochs: int = 0
    optimizer: OptimizerState = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


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
        classes: how many there are.
        candidates: (c,) of the unlabelled images, ascending: those that snapshots vote on, or that a trainer learns of.
        snapshots: last epochs that vote; 0 where no votes are wanted.
        freeze: whether only the output layer is trained.
        heartbeat: called before each batch; what it raises ends the training.
        job: that asks for the training; None outside a run.
        objective: what its steps minimise.
        teacher: a network whose knowledge of the candidates a trainer may pass on; None without.
        continuation: of the trainings that this one goes on from; None for one that stands alone.
    """

    bank: ImageBank
    ids: Ids
    labels: Ids
    training: TrainingSettings
    normalisation: Normalisation
    seed: int
    validation_ids: Ids = field(default_factory=_no_ids)
    validation_labels: Ids = field(default_factory=_no_ids)
    classes: int = 0
    candidates: Ids = field(default_factory=_no_ids)
    snapshots: int = 0
    freeze: bool = False
    heartbeat: Callable[[], None] = lambda: None
    job: TrainingJob | None = None
    objective: Callable[[nn.Module, "TrainingTask"], Objective] = Objective
    teacher: nn.Module | None = None
    continuation: Continuation | None = None

    def augmented(self, ids: Tensor) -> Tensor:
        """Returns images as a step takes them, (n, H, W, C), cropped and flipped at random where the recipe says so."""
        images, training = self.bank.batch(ids), self.training
        if training.crop_padding or training.flip:
            images = augment(images, crop_padding=training.crop_padding, flip=training.flip)
        return images

    def layout(self, model: nn.Module) -> torch.memory_format:
        """Returns the memory layout of the recipe for a network, or the plain one where that gives wrong gradients."""
        is_last = self.training.channels_last and trains_in_channels_last(model, self.bank.device)
        return torch.channels_last if is_last else torch.contiguous_format

    def logits(self, model: nn.Module, ids: Ids) -> Tensor:
        """Returns what the network says of images without augmentation, (n, classes), as the training computes."""
        precision, heartbeat = self.training.precision, self.heartbeat
        fused = fuse_batch_norm(model)
        return predict(
            fused, self.bank, ids, normalisation=self.normalisation, precision=precision, heartbeat=heartbeat
        )


@dataclass(frozen=True)
class FittedModel:
    """What a training gives.

    Attributes:
        state_dict: weights of the best epoch, float32; what a trainer returns is on the CPU.
        epoch: the best one, from 1.
        val_accuracy: its accuracy; None without validation images.
        history: an entry an epoch: epoch, loss (mean over its steps), val_accuracy (None where not validated).
        votes: (snapshots, candidates) classes, as `aal.training.snapshots.SnapshotVotes` collects them; None without.
        continuation: what the next training goes on from, where this one is one of several.
    """

    state_dict: dict[str, Tensor]
    epoch: int
    val_accuracy: float | None
    history: list[dict[str, Any]]
    votes: Tensor | None = None
    continuation: Continuation | None = None


class Trainer(Protocol):
    """Computes what a training job of one kind asks for; `@TRAINERS.register(kind)` registers it."""

    def __call__(self, model: nn.Module, task: TrainingTask) -> FittedModel:
        """Trains a model in place, which has its initial weights. Further typed parameters are `trainer_options`."""
        ...


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the weights on the model's device, from which only the best ones are fetched, at the end."""
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()
    }


def training_fingerprint(settings: Settings, job: TrainingJob, architecture: Architecture, *labels: np.ndarray) -> str:
    """Returns a digest of all that decides what a training gives; the split and the images are the run's.

    Args:
        settings: of the run.
        job: that asks for the training.
        architecture: of the network.
        *labels: columns of ids and of their labels, those that choose the epoch and that it is tested on among them.
    """
    start = job.start and job.start.path
    asked = (job.number, job.kind, job.target, job.owner, start)
    s = settings
    how = (s.seed, architecture, s.pretrained, s.freeze, s.training, s.votes_kept, s.eval_precision)
    text = repr((asked, how, __version__, torch.__version__))
    columns = b"".join(column.tobytes() for column in labels)
    return hashlib.blake2b(text.encode() + columns, digest_size=16).hexdigest()


def reuse_or_train(
    path: pathlib.Path, fingerprint: str, train: Callable[[], dict[str, Any]], heartbeat: Callable[[], None]
) -> dict[str, Any]:
    """Returns what a model file of this fingerprint holds: of the file that is there, or of one that is made now.

    It is there when a simulated run is repeated up to where it broke off, or when a process is given its job again.

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
    payload = {**_train_with_retry(train, heartbeat), "fingerprint": fingerprint}
    save_with_retry(path, payload, heartbeat)
    return payload


def _train_with_retry(train: Callable[[], dict[str, Any]], heartbeat: Callable[[], None]) -> dict[str, Any]:
    """Trains; where a GPU has no memory left, again from the start, for others may have taken it for a moment only."""
    for _ in range(MEMORY_TRIES - 1):
        try:
            return train()
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, after the handler, nothing holds the memory of the failed step any more.
        release_cached_memory()
        log.warning("a GPU has no memory left for a training; trying again")
        heartbeat()
        time.sleep(MEMORY_AGAIN_S)
    with explained_memory_errors("a training"):
        return train()
