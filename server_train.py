"""A server: learn a model from all labels that are there, publish it, and again when more have come."""

import hashlib
import logging
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from aal import __version__
from aal.app.data import ImageSet, Split, load_split, open_set
from aal.app.eval import evaluate
from aal.app.models import Network, build_model
from aal.config.errors import RunFailed, Stopped, UserError
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.clock import Clock, Work
from aal.coordination.hub import Hub
from aal.coordination.messages import TrainedModel, TrainingJob
from aal.storage.model_files import load_model, save_model
from aal.storage.run_directory import MODELS
from aal.training.devices import keep_freed_memory, resolve_device, use_threads
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
    split: Split
    bank: ImageBank
    networks: dict[str, Network] = field(default_factory=dict)

    def work(self, ticket: TrainingJob) -> Work:
        """Returns how much a training is."""
        return training_work(self.settings, self.index, ticket, len(self.split.validation), len(self.split.test))

    def _lesson(self, ticket: TrainingJob, name: str, items: np.ndarray, labels: np.ndarray) -> str:
        """Returns a digest of all that decides what a training learns; the split and the images are the run's."""
        s = self.settings
        how = (ticket.number, s.seed, name, s.width, s.training, __version__, torch.__version__)
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


@dataclass(frozen=True)
class CostedServer:
    """A server under `compute: none`: its trainings take their time on the virtual clock and teach nothing.

    Attributes:
        index: its number.
        settings: of the run.
        validation: images that would be scored after an epoch.
        test: images that would be scored at the end.
    """

    index: int
    settings: Settings
    validation: int
    test: int

    def work(self, ticket: TrainingJob) -> Work:
        """Returns how much a training would be."""
        return training_work(self.settings, self.index, ticket, self.validation, self.test)

    def train(
        self,
        ticket: TrainingJob,
        items: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        check: Callable[[], None],
    ) -> TrainedModel:
        """Returns a model that is not there."""
        check()
        return TrainedModel(ticket.number, self.index, "none", "", 0, started_at, None, None)


def training_work(settings: Settings, index: int, ticket: TrainingJob, validation: int, test: int) -> Work:
    """Returns how much a training is: the images it learns from and those it scores, epoch by epoch."""
    trained, validations = images_of_training(ticket.labels, settings.training)
    scored = validations * validation + test
    return Work("training", index, ticket.number, trained, scored)


async def serve(server: Server | CostedServer, hub: Hub, clock: Clock) -> None:
    """A server's life: wait for a ticket, train on all of L, publish; until the run is over."""
    items, labels = hub.labels(0, 0)

    @_now_and_then
    def check() -> None:
        """Ends a training with the run, and lets it have the cores that are its share by now."""
        now = hub.check(f"server-{server.index}")
        if server.settings.engine == "local":
            use_threads("server", server.settings, now)

    try:
        while True:
            ticket = await clock.until(hub.ticket, server.index)
            started_at = clock.now()
            new_items, new_labels = hub.labels(len(items), ticket.labels)  # L only grows
            items, labels = np.concatenate([items, new_items]), np.concatenate([labels, new_labels])
            log.info("trains on %d labels (ticket %d)", ticket.labels, ticket.number)
            lesson = items[: ticket.labels], labels[: ticket.labels]
            trained = await clock.spend(server.work(ticket), server.train, ticket, *lesson, started_at, check)
            version = hub.publish(trained)
            log.info("published v%d: test accuracy %s", version, trained.test_accuracy)
    except Stopped:
        return


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


def _now_and_then(check: Callable[[], None]) -> Callable[[], None]:
    """Returns a `check` that asks the hub at most every CHECK_EVERY_S seconds."""
    asked_at = 0.0

    def ask() -> None:
        nonlocal asked_at
        if time.monotonic() - asked_at >= CHECK_EVERY_S:
            check()
            asked_at = time.monotonic()

    return ask


async def start(
    index: int, run: pathlib.Path, settings: Settings, hub: Hub, clock: Clock, images: pathlib.Path
) -> None:
    """Builds server `index` in its own process and lets it serve."""
    hub.release("server", index)  # what one before it may have held
    use_threads("server", settings)
    if settings.engine == "local":
        keep_freed_memory()
    device = resolve_device(settings.devices.servers[index % len(settings.devices.servers)], index)
    torch.backends.cudnn.benchmark = device.type == "cuda" and settings.engine == "local"
    torch.backends.cudnn.deterministic = settings.engine == "simulated"
    image_set = open_set(images)
    bank = shared_bank(images / "images.npy", device)
    await serve(Server(index, run, settings, image_set, load_split(run / "split.npz"), bank), hub, clock)


async def start_costed(
    index: int, run: pathlib.Path, settings: Settings, hub: Hub, clock: Clock, validation: int, test: int
) -> None:
    """Lets server `index` of a run without computing serve."""
    await serve(CostedServer(index, settings, validation, test), hub, clock)
