"""What federations with and without rounds have in common: who trains, what arrives, what a client buys."""

import abc
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aal.config.federated import FederatedSettings, federated_problems
from aal.config.settings import Settings
from aal.coordination.evaluations import Evaluations
from aal.coordination.federation import (
    AGGREGATE,
    TRAIN_LOCAL,
    AggregationJob,
    Contribution,
    FederationState,
    LocalJob,
    LocalModel,
    kept_with,
)
from aal.coordination.messages import Change, Computing, Decision, ModelRef, Pending, SelectionGrant, TrainingJob
from aal.coordination.schedules.base import Schedule

if TYPE_CHECKING:
    import numpy as np

    from aal.coordination.answers import Answers
    from aal.coordination.checks import Checks
    from aal.coordination.client_pools import ClientPools
    from aal.coordination.hub import Hub
    from aal.coordination.partition import Partition

KEPT = 2  # versions whose local models are kept, so that the newest can be averaged again where its file is lost


class Federation(Schedule):
    """Base of the schedules of clients and servers.

    A subclass says when a client may train or select and when an average is due (`may_train`, `may_select`,
    `training_due`), what a training begins with (`local_job`) and which labels a version stands for (`labels_of`).

    Args:
        settings: of the run.
        pools: of its clients.
    """

    changes_for_job = Change.UPDATES | Change.LABELS
    changes_for_task = Change.MODELS | Change.UPDATES | Change.IDLE

    def __init__(self, settings: Settings, pools: "ClientPools") -> None:
        super().__init__(settings, pools)
        self.pools: ClientPools = pools
        self.rules = settings.federated or FederatedSettings()
        self.evaluations = Evaluations(self.is_tested)
        self._training: dict[int, LocalJob] = {}  # by client
        self._arrived: list[LocalModel] = []  # that no average has taken
        self._last: dict[int, LocalModel] = {}  # of each client, with its weights
        self._merged: dict[int, list[LocalModel]] = {}  # by version, whose files are still there
        self._trainings = [0] * pools.workers  # that each client was given
        self._given: dict[int, TrainingJob] = {}  # while a run is restored: the last training of each client

    # ------------------------------------------------------------------ what a run needs, from its settings

    @classmethod
    def server_num(cls, settings: Settings) -> int:
        """Returns 1: there is one global model."""
        return 1

    @classmethod
    def make_pools(
        cls,
        settings: Settings,
        partition: "Partition",
        labels: "np.ndarray",
        seed: int,
        answers: "Answers",
        checks: "Checks | None" = None,
    ) -> "ClientPools":
        """See the base."""
        from aal.coordination.client_pools import ClientPools

        return ClientPools(partition, labels, settings.round_size, seed, answers, settings.annotators.cannot_tell)

    @classmethod
    def hub_type(cls) -> "type[Hub]":
        """See the base."""
        from aal.coordination.federated_hub import FederatedHub

        return FederatedHub

    @classmethod
    def contradictions(cls, settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields settings that do not go with a federation."""
        yield from federated_problems(settings)

    # ------------------------------------------------------------------ what a subclass decides

    @abc.abstractmethod
    def may_train(self, client: int) -> bool:
        """Whether a client may train now."""

    @abc.abstractmethod
    def local_job(self, client: int) -> LocalJob:
        """Returns the training of a client that may train."""

    @abc.abstractmethod
    def contributions(self) -> list[LocalModel]:
        """Takes the local models that the next average is of out of those that have arrived."""

    @abc.abstractmethod
    def labels_of(self, models: Sequence[LocalModel]) -> int:
        """Returns how many labels the average of these models stands for."""

    @abc.abstractmethod
    def is_tested(self, version: int) -> bool:
        """Whether a version is to be scored on the test set."""

    # ------------------------------------------------------------------ clients

    def next_task(self, client: int, now: float) -> LocalJob | SelectionGrant | Pending:
        """Gives a client the training that it holds already, else a selection, else a training, as they are due."""
        if client in self._training:
            return self._training[client]
        size = self.batch_size(client)
        if size and self.may_select(client):
            self.release_worker(client)  # one that asks again has lost its grant
            return self.grant(client, size)
        if not self.may_train(client):
            return Pending(self.changes_for_task)
        job = self._training[client] = self.local_job(client)
        self.issued += 1
        self._trainings[client] += 1
        return job

    def grant(self, worker: int, size: int, decision: Decision | None = None) -> SelectionGrant:
        """See the base; with the client's own model."""
        granted = super().grant(worker, size, decision)
        own = self._last.get(worker)
        return replace(granted, local=own.path if own else "")

    def unanswered(self, worker: int) -> list[int]:
        """See the base; of the client's own queries alone."""
        return self.pools.queries.of(worker).unanswered()

    def deliver(self, model: LocalModel) -> None:
        """Ends a local training.

        Raises:
            ValueError: the client does not hold that job.
        """
        job = self._training.get(model.client)
        if job is None or job.number != model.job:
            raise ValueError(f"client {model.client} does not hold job {model.job}")
        del self._training[model.client]
        self._take(model)

    def _take(self, model: LocalModel, version: int | None = None) -> None:
        """Counts a local model that has arrived, or that is in a version already."""
        if model.dropped_out:
            return
        self._last[model.client] = model
        if version is None:
            self._arrived.append(model)
        else:
            self._merged.setdefault(version, []).append(model)

    def batch_size(self, worker: int) -> int:
        """Returns a client's share of a cycle, or what it has left."""
        return min(self.pools.batches[worker], self.pools.left(worker)) if self._left_to_offer(worker) else 0

    def still_to_offer(self) -> int:
        """Returns what the batches that are left hold, as far as the clients' images go."""
        pools = self.pools
        return sum(
            min(self._left_to_offer(client) * pools.batches[client], pools.left(client))
            for client in range(pools.workers)
        )

    def _left_to_offer(self, client: int) -> int:
        return max(0, self.settings.worker_query_num - self.batches[client])

    # ------------------------------------------------------------------ the server

    @property
    def averages(self) -> bool:
        """Whether a version is on its way."""
        return bool(self._held or self._returned or self._unannounced)

    @property
    def version(self) -> int:
        """The version that comes next; those whose files are lost count as there."""
        return len(self.models) + self._unannounced + len(self._lost)

    def new_job(self, server: int) -> TrainingJob:
        """Returns the job of an average that is due."""
        version, models = self.version, self.contributions()
        self._merged[version] = models
        return self._aggregation(self.issued, version, self.labels_of(models), models)

    def cycle_of(self, version: int) -> int:
        """Returns the cycle that a version is in."""
        return 0

    def start_of(self, version: int) -> ModelRef | None:
        """Returns the version that a version goes on from; None where it begins with new weights."""
        return self.models[version - 1] if 0 < version <= len(self.models) else None

    def _aggregation(self, number: int, version: int, labels: int, models: Sequence[LocalModel]) -> AggregationJob:
        start = self.start_of(version)
        newest = start.version if start else None
        paths = {model.version: model.path for model in self.models}
        contributions = tuple(
            Contribution(
                model,
                (-1 if newest is None else newest) - (-1 if model.start is None else model.start),
                "" if model.start is None else paths[model.start],
            )
            for model in models
        )
        return AggregationJob(
            number,
            labels,
            kind=AGGREGATE,
            start=start,
            cycle=self.cycle_of(version),
            contributions=contributions,
            obsolete=self._obsolete(version),
        )

    def _obsolete(self, version: int) -> tuple[str, ...]:
        """Forgets, and returns, the files of local models that no average, selection or training will need."""
        needed = {model.path for model in self._last.values()}
        found = []
        for old in [old for old in self._merged if old <= version - KEPT]:
            gone = [model for model in self._merged[old] if model.path not in needed]
            found += [path for model in gone if model.path for path in (model.path, kept_with(model.path))]
            self._merged[old] = [model for model in self._merged[old] if model.path in needed]
            if not self._merged[old]:
                del self._merged[old]
        return tuple(found)

    def announce(self, models: Sequence[ModelRef]) -> None:
        """See the base; some versions are to be tested."""
        super().announce(models)
        for model in models:
            self.evaluations.add(model)

    # ------------------------------------------------------------------ the run

    @property
    def training_clients(self) -> int:
        """How many clients train."""
        return len(self._training)

    @property
    def computing(self) -> Computing:
        """Who trains, averages or selects."""
        return Computing(len(self._held) + len(self._training), len(self._selecting))

    @property
    def finished(self) -> bool:
        """Whether the last version is there, with every label that can be bought, and was tested."""
        return self.all_answered and self.is_complete and not self.averages and not self.evaluations.due

    @property
    @abc.abstractmethod
    def is_complete(self) -> bool:
        """Whether all versions are published."""

    def restore(
        self,
        batches: Sequence[int],
        models: Sequence[tuple[ModelRef, int]],
        jobs: Sequence[TrainingJob],
        lost: Collection[int] = (),
        outdated: Collection[int] | None = None,
    ) -> None:
        """See the base; an average that had begun is begun again, as another job, unless its version was published."""
        super().restore(batches, models, [job for job in jobs if job.kind == AGGREGATE], lost, outdated)
        self.issued = len(jobs)
        self._returned = [job for job in self._returned if job.number in self._lost]
        self._given = {job.owner: job for job in jobs if job.kind == TRAIN_LOCAL and job.owner is not None}

    def recall_federation(self, state: FederationState) -> None:
        """Takes in what the clients of a resumed run had sent; trainings without a local model go on."""
        version_of = {number: version for version, numbers in state.merged.items() for number in numbers}
        for model in state.local_models:
            self._trainings[model.client] += 1
            self._take(model, version_of.get(model.job))
        ended = {model.job for model in state.local_models}
        lost = set(self._lost.values())
        for client, job in self._given.items():
            begins_again = job.start is not None and job.start.version in lost  # when that version is there again
            if job.number not in ended and not begins_again:
                again = replace(self.local_job(client), number=job.number, labels=job.labels, start=job.start)
                self._training[client] = again
                self._trainings[client] += 1
        self._returned = [
            self._aggregation(
                job.number, self._lost[job.number], job.labels, self._merged.get(self._lost[job.number], ())
            )
            for job in self._returned
        ]
        for version in self.models:
            if version.version not in state.tested:
                self.evaluations.add(version)
