"""A client of a federated run: train on its own labels, choose what to have labelled; again and again."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from aal.app.data import load_split
from aal.app.work_query import Worker
from aal.config.errors import Stopped, UserError
from aal.config.federated import FederatedSettings
from aal.config.registry import STRATEGIES, TRAINERS
from aal.config.seeding import derive, uniforms
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.federated_interfaces import ClientHub, ClientRunner
from aal.coordination.federation import Facts, LocalJob, LocalModel
from aal.coordination.messages import QueryBatch, SelectionGrant
from aal.storage.checksum import checksum_of
from aal.storage.model_files import load_model, model_payload
from aal.storage.run_directory import MODELS
from aal.strategies.assignment import assign
from aal.strategies.ensemble import models_of
from aal.strategies.pool import Scorer
from aal.training.aggregation import State, state_problem, statistics_of, with_statistics_of
from aal.training.continuations import load_continuation, save_continuation
from aal.training.cost import local_training_cost
from aal.training.devices import use_device
from aal.training.images import OwnImages, normalisation_of
from aal.training.networks import Architecture, architecture_from, initial_network
from aal.training.trainer import (
    Continuation,
    FittedModel,
    Trainer,
    TrainingTask,
    reuse_or_train,
    training_fingerprint,
    weights_of,
)
from aal.training.trainers.local import unlabelled_of

log = logging.getLogger("aal")


@dataclass
class Client(Worker):
    """What a client needs to train and to select.

    Attributes:
        settings: of the run.
        facts: that all clients and servers share.
        shard: (n,) its own ids that were unlabelled at the start, ascending.
        incarnation: of its process, 0 for the first in its place; no two of them write to one file.
        compiled: what was compiled and is trained again and again, by name.
    """

    settings: Settings = field(kw_only=True)
    facts: Facts = field(kw_only=True)
    shard: np.ndarray = field(kw_only=True)
    incarnation: int = 0
    compiled: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def rules(self) -> FederatedSettings:
        """How the federation trains."""
        return self.settings.federated or FederatedSettings()

    def selection_cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is, with the global model and the client's own."""
        number = 2 if self._compares_both or self.rules.chosen_by == "both" else 1
        work = self.cost(dataclasses.replace(grant, models=grant.models[:1]), remaining)
        return dataclasses.replace(work, scored=number * work.scored, client=self.index)

    def models_of(self, grant: SelectionGrant) -> Sequence[Scorer]:
        """Returns the models that a selection is made with: the client's own, the global one, or both."""
        shared = grant.models[0].path
        return models_of(self.scorers([self._own(grant), shared]), self.rules.chosen_by, self._compares_both)

    def _own(self, grant: SelectionGrant) -> str:
        """Returns the file of the client's own model; of the global one where it has none that a server would take."""
        shared = grant.models[0].path
        if not grant.local or (self.rules.chosen_by == "global" and not self._compares_both):
            return shared
        expected = load_model(self.run / shared)["state_dict"]
        try:
            problem = state_problem(load_model(self.run / grant.local)["state_dict"], expected)
        except UserError as error:
            problem = str(error)
        if problem is None:
            return grant.local
        log.warning("client %d chooses with the global model in the place of its own: %s", self.index, problem)
        return shared

    @property
    def _compares_both(self) -> bool:
        return bool(STRATEGIES.facts(self.strategy).get("local_and_global"))

    def training_cost(self, job: LocalJob, labels: int) -> Work:
        """Returns how much a training on so many labels is."""
        return local_training_cost(self.settings, self.index, job, labels)

    def train(
        self, job: LocalJob, ids: np.ndarray, labels: np.ndarray, started_at: float, heartbeat: Callable[[], None]
    ) -> LocalModel:
        """Trains on the client's own labels and writes its local model.

        Args:
            job: says what it begins with.
            ids: (n,) labelled ids of its own.
            labels: (n,) of these.
            started_at: of the run's clock, in seconds.
            heartbeat: called before each batch; what it raises ends the training.
        """
        path = self._file_of(job)
        architecture = architecture_from(self.settings, self.facts)
        model_file = reuse_or_train(
            self.run / path,
            training_fingerprint(self.settings, job, architecture, ids, labels),
            lambda: self._trained(job, architecture, ids, labels, heartbeat),
            heartbeat,
        )
        loss = model_file["history"][-1]["loss"] if model_file["history"] else None
        return LocalModel(
            job=job.number,
            client=self.index,
            version=job.version,
            labels=len(ids),
            start=job.start.version if job.start else None,
            path=path,
            started_at=started_at,
            loss=loss if loss is not None and np.isfinite(loss) else None,
            checksum=checksum_of(self.run / path),
        )

    def _file_of(self, job: LocalJob) -> str:
        again = f"-{self.incarnation}" if self.incarnation else ""
        return f"{MODELS}/local-{job.number:05d}-client-{self.index}{again}.pt"

    def _trained(
        self,
        job: LocalJob,
        architecture: Architecture,
        ids: np.ndarray,
        labels: np.ndarray,
        heartbeat: Callable[[], None],
    ) -> dict[str, Any]:
        """Returns what the file of a local model is to hold."""
        s, rules = self.settings, self.rules
        keeps = rules.keep_optimizer or not rules.share_statistics
        continuation = load_continuation(self.run, job if keeps else None, job.epochs_before)
        start: State | None = load_model(self.run / job.start.path)["state_dict"] if job.start else None
        if start is not None and continuation.statistics:
            start = with_statistics_of(start, continuation.statistics)
        model = self._network(job, architecture, start)
        task = TrainingTask(
            bank=self.bank,
            ids=ids,
            labels=labels,
            training=s.training,
            normalisation=normalisation_of(s.training, self.facts.mean, self.facts.std),
            seed=derive(s.seed, "training", job.place),
            classes=architecture.classes,
            candidates=unlabelled_of(self.shard, ids, s.trainer_options.get("published_quirks", ())),
            heartbeat=heartbeat,
            job=job,
            teacher=architecture.restore(start) if start is not None and rules.compensation else None,
            continuation=continuation,
        )
        fitted = self._fitted(model, task)
        if keeps and fitted.continuation is not None:
            optimizer = fitted.continuation.optimizer if rules.keep_optimizer else {}
            statistics = {} if rules.share_statistics else statistics_of(fitted.state_dict)
            kept = Continuation(fitted.continuation.epochs, optimizer, statistics)
            save_continuation(self.run, self._file_of(job), kept)
        return model_payload(
            s,
            state_dict=fitted.state_dict,
            architecture=architecture.as_dict(),
            normalisation=task.normalisation,
            class_names=self.facts.classes,
            images=self.facts.images,
            labels=len(ids),
            epoch=fitted.epoch,
            history=fitted.history,
        )

    def _fitted(self, model: nn.Module, task: TrainingTask) -> FittedModel:
        """Trains; weights that are not finite are sent as they are: the server names them and leaves them out."""
        trainer: Trainer = functools.partial(TRAINERS.load(self.settings.trainer), **self.settings.trainer_options)
        try:
            return trainer(model, task)
        except UserError as error:
            state = {name: value.cpu() for name, value in weights_of(model).items()}
            if all(value.isfinite().all() for value in state.values()):
                raise
            log.warning("%s", error)
            return FittedModel(state, task.training.epochs, None, [])

    def _network(self, job: LocalJob, architecture: Architecture, start: State | None) -> nn.Module:
        """Returns a network with the weights that the training begins with; the same one each time where compiled."""
        network = initial_network(self.settings, architecture, job.cycle)
        if start is not None:
            network.load_state_dict(start)
        if not self.settings.training.compile:
            return network
        kept = self.compiled.setdefault(architecture.name, network)
        kept.load_state_dict(network.state_dict())
        kept.zero_grad()
        return kept


def build(context: Context[ClientHub], images: pathlib.Path, facts: Facts) -> Client:
    """Builds a client in its own process, which keeps its own images alone.

    Args:
        context: of the role.
        images: file of the prepared images.
        facts: that all clients and servers share.
    """
    settings, index = context.settings, context.index
    split, devices = load_split(context.run / "split.npz"), settings.devices.workers
    device = use_device(devices[index % len(devices)])
    return Client(
        index,
        context.run,
        assign(settings, context.roles)[index],
        OwnImages(images, split.owned(index), device),
        settings.seed,
        settings.query_strategy_options,
        networks=tuple(one.model for one in settings.networks),
        heartbeat=context.heartbeat,
        settings=settings,
        facts=facts,
        shard=split.shards[index],
        incarnation=context.incarnation,
    )


async def live(client: ClientRunner, context: Context[ClientHub]) -> None:
    """The role of a client: train or select, as the hub asks, until the run is over."""
    hub, clock, index = context.hub, context.clock, context.index
    try:
        while True:
            task: LocalJob | SelectionGrant = await clock.until(hub.task, index, client.versions)
            if isinstance(task, SelectionGrant):
                await _select(client, task, context)
            else:
                await _train(client, task, context)
    except Stopped:
        return


async def _train(client: ClientRunner, job: LocalJob, context: Context[ClientHub]) -> None:
    """Trains, and sends the local model, unless the client drops out."""
    hub, clock, index, s = context.hub, context.clock, context.index, context.settings
    ids, labels = hub.own_labels(index, job.labels)
    started_at, work = clock.now(), client.training_cost(job, len(ids))
    drawn, *_ = uniforms(s.seed, "dropout", index, job.number)
    if s.federated is not None and drawn < s.federated.dropout:
        start = job.start.version if job.start else None
        model = LocalModel(job.number, index, job.version, len(ids), start, "", started_at, dropped_out=True)
        await clock.spend(work, lambda: None)
        log.info("client %d dropped out of job %d", index, job.number)
    else:
        log.info("client %d trains on %d labels of its own (job %d)", index, len(ids), job.number)
        model = await clock.spend(work, client.train, job, ids, labels, started_at, context.heartbeat)
    hub.deliver(model)


async def _select(client: ClientRunner, grant: SelectionGrant, context: Context[ClientHub]) -> None:
    """Selects among the client's own images, and offers the batch to its own annotators."""
    hub, clock, index = context.hub, context.clock, context.index
    remaining, started_at = hub.remaining(index), clock.now()

    def labelled() -> tuple[np.ndarray, np.ndarray]:
        return hub.own_labels(index, 2**62)

    def unanswered() -> np.ndarray:
        return hub.unanswered(index)

    cost = client.selection_cost(grant, remaining)
    chosen = await clock.spend(cost, client.select, grant, remaining, labelled, unanswered)
    versions = tuple(model.version for model in grant.models)
    hub.offer(QueryBatch(index, grant.batch, chosen.tolist(), client.strategy, versions, started_at))
    log.info("client %d offered %d ids selected with v%d", index, len(chosen), grant.version)
