"""A server: train a model on all labels that are there, publish it, and again when more have come."""

import dataclasses
import functools
import logging
import math
import pathlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from aal.app.data import ImageSet, load_split, on_features, open_set
from aal.app.eval import evaluate
from aal.config.contradictions import learns_on_features
from aal.config.errors import Stopped, UserError
from aal.config.registry import TRAINERS
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.interfaces import JobRunner, ServerHub
from aal.coordination.messages import TrainedModel, TrainingJob
from aal.coordination.partition import HeldOutLabels, Partition
from aal.storage.checksum import checksum_of
from aal.storage.model_files import load_model, model_payload
from aal.storage.run_directory import MODELS
from aal.training.acceleration import LossFunction, compile_loss
from aal.training.cost import epoch_shape, training_cost
from aal.training.devices import float32_arithmetic, use_device
from aal.training.heads import freeze_all_but_head, set_training_mode
from aal.training.images import ImageBank, normalisation_of, shared_bank
from aal.training.loss_checks import diverged, suspicion
from aal.training.networks import Architecture, architecture_of
from aal.training.optimizers import build_optimizer, build_schedule, optimizer_state, resume_optimizer
from aal.training.pretrained import Pretrained, load_matching, normalisation_for, read_pretrained
from aal.training.snapshots import SnapshotVotes, snapshots_payload
from aal.training.trainer import (
    Continuation,
    FittedModel,
    Trainer,
    TrainingTask,
    reuse_or_train,
    training_fingerprint,
    weights_of,
)

log = logging.getLogger("aal")

FEWEST_VALIDATED = 20  # images held out for validation that choose an epoch: those of fewer hardly differ
TAKEN_BACK_S = 0.5  # between two looks for labels, where people took back all that there were


@TRAINERS.register("fit")
def fit(model: nn.Module, task: TrainingTask) -> FittedModel:
    """Trains a model on labelled images (paper, equation 1: g_i = A(L)) and keeps its best epoch.

    The same seed on the same CPU gives the same weights; the process's own random numbers are left as they are.

    Args:
        model: with its initial weights; it is trained in place and ends with those of the best epoch.
        task: on what, and how.
    """
    training, bank, device = task.training, task.bank, task.bank.device
    model.to(device, memory_format=task.layout(model))
    if task.freeze:
        freeze_all_but_head(model)
    objective = task.objective(model, task)
    ids, labels = (torch.as_tensor(column, device=device) for column in (task.ids, task.labels))
    steps, batch_size = epoch_shape(len(ids), training)
    rows = torch.arange(steps * batch_size, device=device) % len(ids)  # the last batch is filled up from the start
    validates = len(task.validation_ids) > 0
    first_validated = min(training.validate_after + 1, training.epochs) if validates else training.epochs

    optimizer, before = build_optimizer(model, training), task.continuation or Continuation()
    resume_optimizer(model, optimizer, before.optimizer)
    schedule = build_schedule(optimizer, training, training.epochs * steps, before.epochs)
    best: FittedModel | None = None
    votes = SnapshotVotes(task)
    history: list[dict[str, Any]] = []

    with torch.random.fork_rng([device] if device.type == "cuda" else []), float32_arithmetic(training.precision):
        torch.manual_seed(task.seed)
        set_training_mode(model, freeze=task.freeze)
        step_loss: LossFunction = objective.loss
        if training.compile:
            first = rows[:batch_size]
            step_loss = compile_loss(step_loss, model, bank.batch(ids[first]), labels[first], *objective.drawn())
        for epoch in range(1, training.epochs + 1):
            set_training_mode(model, freeze=task.freeze)
            losses = []
            for chosen in torch.randperm(len(ids), device=device)[rows].split(batch_size):
                task.heartbeat()
                images = task.augmented(ids[chosen])
                optimizer.zero_grad()
                loss = step_loss(images, labels[chosen], *objective.drawn())
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach().clone())  # a recorded step writes the next loss to the same place

            accuracy = None
            if validates and epoch >= first_validated:
                accuracy = _accuracy(model, task)
            mean_loss = torch.stack(losses).mean().item()  # the device is asked only once an epoch
            history.append({"epoch": epoch, "loss": mean_loss, "val_accuracy": accuracy})
            if not math.isfinite(mean_loss):  # and so are the weights: no later epoch can mend them
                break
            votes.cast(model, epoch)
            if epoch >= first_validated and (best is None or (accuracy or 0.0) >= (best.val_accuracy or 0.0)):
                best = FittedModel(weights_of(model), epoch, accuracy, history)

    if best is None:
        raise UserError(f"{diverged(history)}; lower training.learning_rate or training.weight_decay")
    model.load_state_dict(best.state_dict)
    state_dict = {name: value.cpu() for name, value in best.state_dict.items()}
    after = task.continuation and Continuation(before.epochs + training.epochs, optimizer_state(model, optimizer))
    return dataclasses.replace(best, state_dict=state_dict, votes=votes.collected(model), continuation=after)


def _accuracy(model: nn.Module, task: TrainingTask) -> float:
    """Returns the share of validation images that the model classifies right."""
    logits = task.logits(model, task.validation_ids)
    return int((logits.argmax(1) == torch.as_tensor(task.validation_labels)).sum()) / len(logits)


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
        incarnation: of its process, 0 for the first in its place; no two of them write to one file.
    """

    index: int
    run: pathlib.Path
    settings: Settings
    images: ImageSet
    split: Partition
    bank: ImageBank
    networks: dict[str, nn.Module] = field(default_factory=dict)
    incarnation: int = 0

    def cost(self, job: TrainingJob) -> Work:
        """Returns how much a training is."""
        return training_cost(self.settings, self.index, job, self.split.sizes)

    def train(
        self,
        job: TrainingJob,
        ids: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        heartbeat: Callable[[], None],
        held_out: HeldOutLabels | None = None,
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
            held_out: labels that people gave to images for testing and validation; None where there are none.

        Returns:
            What the hub publishes; the model's file is in place by then.

        Raises:
            UserError: the device has no memory left.
        """
        s, shape = self.settings, self.images.images.shape
        network = s.networks[job.network]
        size = {"classes": len(self.images.classes), "channels": shape[3], "image_size": shape[1]}
        architecture = architecture_of(s, network, **size)
        again = f"-{self.incarnation}" if self.incarnation else ""
        path = f"{MODELS}/training-{job.number:04d}-server-{self.index}{again}.pt"
        scored = self._scored(held_out)
        model_file = reuse_or_train(
            self.run / path,
            training_fingerprint(s, job, architecture, ids, labels, *scored),
            lambda: self._trained(job, architecture, ids, labels, scored, heartbeat),
            heartbeat,
        )
        return TrainedModel(
            job=job.number,
            server=self.index,
            model=network.name,
            path=path,
            started_at=started_at,
            warning=suspicion(model_file["history"], size["classes"]),
            checksum=checksum_of(self.run / path),
            history=tuple((one["epoch"], one.get("loss"), one.get("val_accuracy")) for one in model_file["history"]),
            **{key: model_file[key] for key in ("epoch", "val_accuracy", "test_accuracy", "confusion")},
        )

    def _trained(
        self,
        job: TrainingJob,
        architecture: Architecture,
        ids: np.ndarray,
        labels: np.ndarray,
        scored: HeldOutLabels,
        heartbeat: Callable[[], None],
    ) -> dict[str, Any]:
        """Returns what the model file is to hold: the weights and all that is known about them."""
        s, split = self.settings, self.split
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
            validation_ids=scored.validation,
            validation_labels=scored.validation_labels,
            classes=architecture.classes,
            candidates=np.setdiff1d(split.trainable, ids) if s.votes_kept else ids[:0],
            snapshots=s.votes_kept,
            freeze=s.freeze,
            heartbeat=heartbeat,
            job=job,
        )
        self.bank.expect(ids)
        trainer: Trainer = functools.partial(TRAINERS.load(job.kind), **s.trainer_options)
        fitted = trainer(model, task)
        if s.votes_kept and fitted.votes is None:
            raise UserError(f"trainer: {job.kind} keeps no votes of snapshots, which query_strategy needs")
        precision = s.eval_precision

        score = functools.partial(
            evaluate, model, self.bank, normalisation=task.normalisation, precision=precision, heartbeat=heartbeat
        )
        val_accuracy, test = fitted.val_accuracy, score(*scored[:2]) if len(scored.test) else None
        if val_accuracy is not None and s.training.precision != precision:  # it was computed in that of the training
            val_accuracy = score(*scored[2:]).accuracy
        return model_payload(
            s,
            state_dict=fitted.state_dict,
            architecture=architecture.as_dict(),
            normalisation=task.normalisation,
            class_names=self.images.classes,
            images=self.images.folder.name,
            labels=job.labels,
            epoch=fitted.epoch,
            val_accuracy=val_accuracy,
            test_accuracy=test.accuracy if test else None,
            precision=precision,
            confusion=_pairs(test.confusion) if test else [],
            history=fitted.history,
            **({} if fitted.votes is None else {"snapshots": snapshots_payload(task, fitted.votes)}),
        )

    def _scored(self, held_out: HeldOutLabels | None) -> HeldOutLabels:
        """Returns the images that a model is tested on, and those that choose the epoch: of the set, or of people."""
        test, validation, truth = self.split.test, self.split.validation, self.images.labels
        if held_out is None or not len(self.split.held_out.ids):
            return HeldOutLabels(test, truth[test], validation, truth[validation])
        if len(held_out.validation) >= FEWEST_VALIDATED:
            return held_out
        return held_out._replace(validation=validation, validation_labels=truth[validation])

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


def build(context: Context[ServerHub], images: pathlib.Path, features: pathlib.Path | None = None) -> Server:
    """Builds a server in its own process.

    Args:
        context: of the role.
        images: the folder of the prepared images.
        features: the file of these, where the run has some.
    """
    settings = context.settings
    device = use_device(settings.devices.servers[context.index % len(settings.devices.servers)])
    image_set, source = open_set(images), images / "images.npy"
    if features and learns_on_features(settings):
        image_set, source = on_features(image_set, features), features
    bank = shared_bank(source, device, context.arriving.get(source))
    split = load_split(context.run / "split.npz")
    return Server(context.index, context.run, settings, image_set, split, bank, incarnation=context.incarnation)


async def serve(server: JobRunner, context: Context[ServerHub]) -> None:
    """The role of a server: wait for a job, train on the labels that it may read, publish; until the run is over."""
    hub, clock = context.hub, context.clock
    try:
        while True:
            job = await clock.until(hub.job, context.index)
            started_at = clock.now()
            ids, labels = hub.labels(0, job.labels, job.owner)
            while not len(ids):  # people took back all of them since the job was given: what they say next will do
                await clock.sleep(TAKEN_BACK_S)
                context.heartbeat()
                ids, labels = hub.labels(0, sys.maxsize, job.owner)
            held_out = hub.held_out(job.labels)
            log.info("trains on %d labels (job %d)", len(ids), job.number)
            arguments = (job, ids, labels, started_at, context.heartbeat, held_out)
            trained = await clock.spend(server.cost(job), server.train, *arguments)
            version = hub.publish(trained)
            log.info("published v%d%s", version, _tested(trained))
            if trained.warning:
                log.warning("v%d: %s", version, trained.warning)
    except Stopped:
        return


def _pairs(confusion: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (true class, predicted class, images) of each pair that occurs."""
    return [(truth, taken, int(confusion[truth, taken])) for truth, taken in np.argwhere(confusion).tolist()]


def _tested(trained: TrainedModel) -> str:
    return "" if trained.test_accuracy is None else f": test accuracy {trained.test_accuracy:.4f}"
