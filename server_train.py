"""A server: train a model on all labels that are there, publish it, and again when more have come."""

import logging
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

from aal.app.data import ImageSet, Split, load_split, open_set
from aal.app.eval import evaluate
from aal.config.errors import Stopped, UserError
from aal.config.registry import TRAINERS
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.clock import Clock, Work
from aal.coordination.hub import Hub
from aal.coordination.messages import TrainedModel, TrainingJob
from aal.storage.model_files import load_model, model_payload, save_with_retry
from aal.storage.run_directory import MODELS
from aal.training.acceleration import compile_network, fuse_batch_norm
from aal.training.cost import epoch_shape, training_cost
from aal.training.devices import autocast, keep_freed_memory, resolve_device, use_threads
from aal.training.heads import freeze_all_but_head, set_training_mode
from aal.training.images import ImageBank, Pixels, augment, normalisation_of, shared_bank
from aal.training.inference import ADVICE, predict
from aal.training.networks import Architecture, architecture_of
from aal.training.optimizers import build_optimizer, build_schedule
from aal.training.pretrained import Pretrained, load_matching, normalisation_for, read_pretrained
from aal.training.trainer import (
    FittedModel,
    Trainer,
    TrainingTask,
    find_trained,
    training_fingerprint,
    weights_of,
)

CHECK_EVERY_S = 0.5

log = logging.getLogger("aal")


@TRAINERS.register("fit")
def fit(model: nn.Module, task: TrainingTask) -> FittedModel:
    """Trains a model on labelled images (paper, equation 1: g_i = A(L)) and keeps its best epoch.

    The same seed on the same CPU gives the same weights; the process's own random numbers are left as they are.

    Args:
        model: with its initial weights; it is trained in place and ends with those of the best epoch.
        task: on what, and how.
    """
    training, bank, device = task.training, task.bank, task.bank.device
    layout = torch.channels_last if training.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)
    if task.freeze:
        freeze_all_but_head(model)
    network = compile_network(model, device) if training.compile else model
    pixels = Pixels(task.normalisation, device, training.channels_last)

    ids, labels = (torch.as_tensor(column, device=device) for column in (task.ids, task.labels))
    steps, batch_size = epoch_shape(len(ids), training)
    rows = torch.arange(steps * batch_size, device=device) % len(ids)  # the last batch is filled up from the start
    validates = len(task.validation_ids) > 0
    first_validated = min(training.validate_after + 1, training.epochs) if validates else training.epochs

    optimizer = build_optimizer(model, training)
    schedule = build_schedule(optimizer, training, training.epochs * steps)
    best: FittedModel | None = None
    history: list[dict[str, Any]] = []

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(task.seed)
        for epoch in range(1, training.epochs + 1):
            set_training_mode(model, freeze=task.freeze)
            losses = []
            for chosen in torch.randperm(len(ids), device=device)[rows].split(batch_size):
                task.heartbeat()
                images = bank.batch(ids[chosen])
                if training.crop_padding or training.flip:
                    images = augment(images, crop_padding=training.crop_padding, flip=training.flip)
                with autocast(device, training.precision):
                    logits = network(pixels(images))
                loss = F.cross_entropy(logits.float(), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())

            accuracy = None
            if validates and epoch >= first_validated:
                accuracy = _accuracy(model, task)
            mean_loss = torch.stack(losses).mean().item()  # the device is asked only once an epoch
            history.append({"epoch": epoch, "loss": mean_loss, "val_accuracy": accuracy})
            if epoch >= first_validated and (best is None or (accuracy or 0.0) >= (best.val_accuracy or 0.0)):
                best = FittedModel(weights_of(model), epoch, accuracy, history)

    assert best is not None  # the last epoch is always looked at
    model.load_state_dict(best.state_dict)
    return best


def _accuracy(model: nn.Module, task: TrainingTask) -> float:
    """Returns the share of validation images that the model classifies right."""
    logits = predict(
        fuse_batch_norm(model),
        task.bank,
        task.validation_ids,
        normalisation=task.normalisation,
        precision=task.training.precision,
        heartbeat=task.heartbeat,
    )
    return (logits.argmax(1) == torch.as_tensor(task.validation_labels)).float().mean().item()


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
        networks: what was compiled and is trained again and again, by name.
    """

    index: int
    run: pathlib.Path
    settings: Settings
    images: ImageSet
    split: Split
    bank: ImageBank
    networks: dict[str, nn.Module] = field(default_factory=dict)

    def cost(self, job: TrainingJob) -> Work:
        """Returns how much a training is."""
        return training_cost(self.settings, self.index, job, len(self.split.validation), len(self.split.test))

    def train(
        self,
        job: TrainingJob,
        ids: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        heartbeat: Callable[[], None],
    ) -> TrainedModel:
        """Does a training job: trains a model, saves it, and scores it on the test set.

        The test set is only reported; the validation set chooses the epoch. A model of the same fingerprint that is
        there already is not trained again.

        Args:
            job: its kind names the trainer, its number seeds the weights and the order, whichever server holds it.
            ids: (n,) labelled ids.
            labels: (n,) of these, as the annotators gave them.
            started_at: of the run's clock, in seconds.
            heartbeat: called before each batch; what it raises ends the training.

        Returns:
            What the hub publishes; the model's file is in place by then.

        Raises:
            UserError: the device has no memory left.
        """
        s, shape = self.settings, self.images.images.shape
        name = s.models[self.index % len(s.models)]
        size = {"classes": len(self.images.classes), "channels": shape[3], "image_size": shape[1]}
        architecture = architecture_of(s, name, **size)
        path = f"{MODELS}/training-{job.number:04d}-server-{self.index}.pt"
        fingerprint = training_fingerprint(s, job, architecture, ids, labels)
        model_file = find_trained(self.run / path, fingerprint)
        if model_file is None:
            try:
                model_file = self._trained(job, architecture, ids, labels, heartbeat)
            except torch.OutOfMemoryError:
                raise UserError(f"{self.bank.device}: has no memory left for a training; {ADVICE}") from None
            model_file["fingerprint"] = fingerprint
            save_with_retry(self.run / path, model_file, heartbeat)
        accuracies = model_file["val_accuracy"], model_file["test_accuracy"]
        return TrainedModel(job.number, self.index, name, path, model_file["epoch"], started_at, *accuracies)

    def _trained(
        self,
        job: TrainingJob,
        architecture: Architecture,
        ids: np.ndarray,
        labels: np.ndarray,
        heartbeat: Callable[[], None],
    ) -> dict[str, Any]:
        """Returns what the model file is to hold: the weights and all that is known about them."""
        s, split, truth = self.settings, self.split, self.images.labels
        pretrained = read_pretrained(s.pretrained) if s.pretrained else None
        model = self._network(job, architecture, pretrained)
        normalisation = normalisation_for(pretrained, architecture.channels) if pretrained else None
        task = TrainingTask(
            bank=self.bank,
            ids=ids,
            labels=labels,
            training=s.training,
            normalisation=normalisation or normalisation_of(s.training, split.mean, split.std),
            seed=derive(s.seed, "training", job.number),
            validation_ids=split.validation,
            validation_labels=truth[split.validation],
            freeze=s.freeze,
            heartbeat=heartbeat,
        )
        trainer: Trainer = TRAINERS.load(job.kind)
        fitted = trainer(model, task)
        test = evaluate(
            model,
            self.bank,
            split.test,
            truth[split.test],
            normalisation=task.normalisation,
            heartbeat=heartbeat,
        )
        return model_payload(
            s,
            state_dict=fitted.state_dict,
            architecture=architecture.as_dict(),
            normalisation=task.normalisation,
            class_names=self.images.classes,
            images=self.images.folder.name,
            labels=job.labels,
            epoch=fitted.epoch,
            val_accuracy=fitted.val_accuracy,
            test_accuracy=test.accuracy,
            history=fitted.history,
        )

    def _network(self, job: TrainingJob, architecture: Architecture, pretrained: Pretrained | None) -> nn.Module:
        """Returns a network with its initial weights; the same one each time where it is compiled."""
        network = architecture.build(derive(self.settings.seed, "weights", job.number))
        if pretrained is not None:
            left = load_matching(network, pretrained)
            log.info("starts from %s; not loaded: %s", pretrained.name, ", ".join(left) or "nothing")
        if job.start is not None:
            network.load_state_dict(load_model(self.run / job.start.path)["state_dict"])
        if not self.settings.training.compile:
            return network
        kept = self.networks.setdefault(architecture.name, network)
        kept.load_state_dict(network.state_dict())
        kept.zero_grad()
        return kept


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

    def cost(self, ticket: TrainingJob) -> Work:
        """Returns how much a training would be."""
        return training_cost(self.settings, self.index, ticket, self.validation, self.test)

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
            known = items[: ticket.labels], labels[: ticket.labels]
            trained = await clock.spend(server.cost(ticket), server.train, ticket, *known, started_at, check)
            version = hub.publish(trained)
            log.info("published v%d: test accuracy %s", version, trained.test_accuracy)
    except Stopped:
        return


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
