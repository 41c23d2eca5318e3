"""A server: learn a model from all labels that are there, publish it, and again when more have come."""

import hashlib
import logging
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from aal.app.data import ImageSet, load_split, open_set
from aal.app.eval import evaluate
from aal.app.models import Network, build_model
from aal.config.errors import RunFailed, Stopped, UserError
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.interfaces import ServerHub
from aal.coordination.messages import TrainedModel, TrainingJob
from aal.coordination.partition import Partition
from aal.storage.model_files import load_model, save_model
from aal.storage.run_directory import MODELS, VERSION
from aal.training.devices import resolve_device
from aal.training.fitting import ADVICE, images_of_training, learn
from aal.training.images import ImageBank, normalisation_of, shared_bank

CHECK_EVERY_S = 0.5
SAVE_FOR_S, SAVE_AGAIN_S = 60.0, 2.0

log = logging.getLogger("aal")


@dataclass(frozen=True)
class Server:
    """What a server needs to train.

    Attributes:
        index: its number.
        run: the run's folder, to which model paths are relative.
        settings: of the run.
        images: the whole set.
        split: validation ids, test ids, normalisation.
        bank: the images on the device to train on.
        networks: by name, what was compiled and is trained again and again.
    """

    index: int
    run: pathlib.Path
    settings: Settings
    images: ImageSet
    split: Partition
    bank: ImageBank
    networks: dict[str, Network] = field(default_factory=dict)

    def cost(self, ticket: TrainingJob) -> Work:
        """Returns how much a training is."""
        return training_work(self.settings, self.index, ticket, len(self.split.validation), len(self.split.test))

    def _lesson(self, ticket: TrainingJob, name: str, items: np.ndarray, labels: np.ndarray) -> str:
        """Returns a digest of all that decides what a training learns; the split and the images are the run's."""
        s = self.settings
        how = (ticket.number, s.seed, name, s.width, s.training, VERSION, torch.__version__)
        return hashlib.blake2b(repr(how).encode() + items.tobytes() + labels.tobytes(), digest_size=16).hexdigest()

    def _network(self, name: str, seed: int) -> Network:
        """Returns a network with the weights of the seed; the same one each time where it is compiled."""
        new = build_model(
            name,
            classes=len(self.images.classes),
            channels=self.images.images.shape[3],
            image_size=self.images.images.shape[1],
            width=self.settings.width,
            seed=seed,
        )
        if not self.settings.training.compile:
            return new
        kept = self.networks.setdefault(name, new)
        kept.load_state_dict(new.state_dict())
        kept.zero_grad()
        return kept

    def train(
        self,
        ticket: TrainingJob,
        items: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        check: Callable[[], None],
    ) -> TrainedModel:
        """Learns a model from scratch (paper, equation 1: g_i = A(L)), saves it and scores it on the test set.

        The test set is only reported; the validation set chooses the epoch. A model that has learned from the very
        same labels in the same order and waits in its file, since its server died before it could tell, or since a
        simulated run is repeated up to where it broke off, is not learned again.

        Args:
            ticket: its number seeds the weights and the order of the images, whichever server holds it.
            items: (n,) labelled ids.
            labels: (n,) of these, as the annotators gave them.
            started_at: of the run's clock.
            check: called before each batch; what it raises ends the training.

        Returns:
            What the hub is told; the model's file is in place by then.
        """
        s, truth = self.settings, self.images.labels
        name = s.models[self.index % len(s.models)]
        path = f"{MODELS}/training-{ticket.number:04d}-server-{self.index}.pt"
        lesson = self._lesson(ticket, name, items, labels)
        known = _learned_before(self.run / path, lesson)
        if known is not None:
            accuracies = known["val_accuracy"], known["test_accuracy"]
            return TrainedModel(ticket.number, self.index, name, path, known["epoch"], started_at, *accuracies)
        model = self._network(name, derive(s.seed, "weights", ticket.number))
        normalisation = normalisation_of(s.training, self.split.mean, self.split.std)
        validation = self.split.validation
        try:
            learned = learn(
                model,
                self.bank,
                items,
                labels,
                validation,
                truth[validation],
                training=s.training,
                normalisation=normalisation,
                seed=derive(s.seed, "training", ticket.number),
                progress=check,
            )
        except torch.OutOfMemoryError:
            raise UserError(f"{self.bank.device}: has no memory left for a training; {ADVICE}") from None
        test = evaluate(
            model, self.bank, self.split.test, truth[self.split.test], normalisation=normalisation, progress=check
        )
        payload = {
            "state_dict": learned.state_dict,
            "architecture": model.architecture,
            "normalisation": normalisation,
            "class_names": list(self.images.classes),
            "data": {
                "data_type": s.data_type,
                "image_size": s.image_size,
                "test_share": s.test_share,
                "seed": s.seed,
                "images": self.images.folder.name,
            },
            "labels": ticket.labels,
            "lesson": lesson,
            "epoch": learned.epoch,
            "val_accuracy": learned.val_accuracy,
            "test_accuracy": test.accuracy,
            "history": learned.history,
        }
        save_patiently(self.run / path, payload, check)
        return TrainedModel(
            ticket.number, self.index, name, path, learned.epoch, started_at, learned.val_accuracy, test.accuracy
        )


class Trains(Protocol):
    """What the role of a server computes with: a `Server`, or its stand-in in a simulation."""

    def cost(self, job: TrainingJob) -> Work:
        """Returns how much a training is."""
        ...

    def train(
        self, job: TrainingJob, ids: np.ndarray, labels: np.ndarray, started_at: float, heartbeat: Callable[[], None]
    ) -> TrainedModel:
        """Trains a model for a job and puts its file in place."""
        ...


def training_work(settings: Settings, index: int, ticket: TrainingJob, validation: int, test: int) -> Work:
    """Returns how much a training is: the images it learns from and those it scores, epoch by epoch."""
    trained, validations = images_of_training(ticket.labels, settings.training)
    scored = validations * validation + test
    return Work("training", index, ticket.number, trained, scored)


async def serve(server: Trains, context: Context[ServerHub]) -> None:
    """The role of a server: wait for a job, train on the labels that it may read, publish; until the run is over."""
    hub, clock = context.hub, context.clock
    ids, labels = hub.labels(0, 0)
    try:
        while True:
            job = await clock.until(hub.job, context.index)
            started_at = clock.now()
            if job.owner is None:
                new_ids, new_labels = hub.labels(len(ids), job.labels)  # L only grows
                ids, labels = np.concatenate([ids, new_ids]), np.concatenate([labels, new_labels])
                read = ids[: job.labels], labels[: job.labels]
            else:
                read = hub.labels(0, job.labels, job.owner)
            log.info("trains on %d labels (job %d)", len(read[0]), job.number)
            trained = await clock.spend(server.cost(job), server.train, job, *read, started_at, context.heartbeat)
            version = hub.publish(trained)
            log.info("published v%d%s", version, _tested(trained))
    except Stopped:
        return


def _tested(trained: TrainedModel) -> str:
    return "" if trained.test_accuracy is None else f": test accuracy {trained.test_accuracy:.4f}"


def _learned_before(path: pathlib.Path, lesson: str) -> dict[str, Any] | None:
    """Returns what a model file holds that was learned from these labels; None when there is none."""
    if not path.exists():
        return None
    try:
        known = load_model(path)
    except UserError:
        return None
    return known if known.get("lesson") == lesson else None


def save_patiently(path: pathlib.Path, payload: dict[str, Any], check: Callable[[], None]) -> None:
    """Saves a model; while the disk does not take it, tries again for SAVE_FOR_S seconds, for a training is dear.

    Raises:
        RunFailed: the disk did not take it.
    """
    deadline = time.monotonic() + SAVE_FOR_S
    while True:
        try:
            return save_model(path, payload)
        except OSError as error:
            reason = f"{path}: the model cannot be written: {error.strerror or error}"
            if time.monotonic() > deadline:
                raise RunFailed(f"{reason}; make room for it") from None
            log.warning("%s; trying again", reason)
            time.sleep(SAVE_AGAIN_S)
            check()


def build(context: Context[ServerHub], images: pathlib.Path) -> Server:
    """Builds a server in its own process.

    Args:
        context: of the role.
        images: the folder of the prepared images.
    """
    settings = context.settings
    device = resolve_device(settings.devices.servers[context.index % len(settings.devices.servers)], context.index)
    image_set = open_set(images)
    bank = shared_bank(images / "images.npy", device)
    return Server(context.index, context.run, settings, image_set, load_split(context.run / "split.npz"), bank)
