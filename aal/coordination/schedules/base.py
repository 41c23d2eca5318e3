"""What every schedule does: it gives out training jobs and selection grants, and takes back those of dead roles.

A schedule decides from the sizes of the pools and from what it has given out; it never waits. A subclass says when a
training is due, how large a batch is, and when a worker may select.
"""

import abc
from bisect import insort
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aal.config.errors import Stopped
from aal.config.settings import Settings
from aal.coordination.lineages import Lineages, up_to
from aal.coordination.messages import ANY, Change, Computing, Decision, ModelRef, Pending, SelectionGrant, TrainingJob
from aal.coordination.query_pool import NO_MODEL
from aal.coordination.schedules.needs import RunNeeds

if TYPE_CHECKING:
    from aal.coordination.federation import FederationState
    from aal.coordination.pools import Pools  # loads NumPy, which a mistake in the settings need not wait for


class Schedule(RunNeeds, abc.ABC):
    """Base of all schedules.

    Args:
        settings: of the run.
        pools: whose sizes decide.

    Attributes:
        takes_turns: whether roles compute one after another, so that each may have all cores.
        changes_for_job: which changes can make a training due; any, unless a subclass knows better.
        changes_for_grant: which changes can let a worker select; any, unless a subclass knows better.
    """

    takes_turns = False
    changes_for_job = ANY
    changes_for_grant = ANY

    _withdraws = False  # whether a batch may replace queries of older models

    def __init__(self, settings: Settings, pools: "Pools") -> None:
        self.settings = settings
        self.pools = pools
        self.models: list[ModelRef] = []
        self.batches = [0] * pools.workers
        self.issued = 0
        self.lineages = Lineages(settings.target_num)
        self._unannounced = 0  # models whose record is on its way to the disk
        self._held: dict[int, tuple[int, TrainingJob]] = {}
        self._returned: list[TrainingJob] = []
        self._lost: dict[int, int] = {}  # versions whose files are lost, by the number of the job that makes them again
        self._idle_servers: dict[int, None] = {}
        self._selecting: dict[int, SelectionGrant] = {}
        self._promised = 0  # ids of these grants

    @property
    def trained_on(self) -> int:
        """Labels of the largest job of the target that lags most."""
        return self.lineages.trained_on

    # ------------------------------------------------------------------ what a subclass decides

    @abc.abstractmethod
    def training_due(self) -> bool:
        """Whether L has grown so far, since the target that lags most was trained, that an idle server may train."""

    @abc.abstractmethod
    def batch_size(self, worker: int) -> int:
        """Returns the size of a worker's next batch; 0 when it has offered all that it may."""

    @abc.abstractmethod
    def still_to_offer(self) -> int:
        """Returns how many ids will yet be offered, without those that are held out."""

    @abc.abstractmethod
    def may_select(self, worker: int) -> bool:
        """Whether a worker may select with the newest models."""

    # ------------------------------------------------------------------ trainings

    def next_job(self, server: int, now: float) -> TrainingJob | Pending:
        """Gives an idle server a job when a training is due and no other server has waited longer.

        A server that asks while it holds a job never received it, for it died; it is given the same again.

        Args:
            server: that asks.
            now: the time.
        """
        for holder, job in self._held.values():
            if holder == server:
                return job
        self._idle_servers.setdefault(server)
        if next(iter(self._idle_servers)) != server:
            return Pending(self.changes_for_job, in_turn=True)
        if self._returned:
            job = self._returned.pop(0)
        elif self.training_due() and self.pools.labelled.can_train:
            job = self.new_job(server)
            self.issued += 1
            self.lineages.note_job(job, self.pools.revision)
        else:
            return Pending(self.changes_for_job)
        del self._idle_servers[server]
        self._held[job.number] = (server, job)
        return job

    def new_job(self, server: int) -> TrainingJob:
        """Returns the job of a training that is due: all of L, for the target that lags most.

        Without targets the networks are dealt out to the servers in turn. So that a seed has one initial model, it is
        of the first network, whichever server asks first, and of the initial labels, whoever has answered by then.
        """
        is_initial, target = self.issued < self.lineages.number, self.lineages.lagging
        labels = self.pools.initial or self.pools.labels if is_initial else self.pools.labels
        network = target if self.settings.targets else server % len(self.settings.models) if self.issued else 0
        return TrainingJob(self.issued, labels, kind=self.settings.trainer, target=target, network=network)

    def settle(self, number: int, server: int, path: str, now: float) -> tuple[TrainingJob, ModelRef]:
        """Ends a job; returns it with the model's place in the order of versions, to be announced when it is on disk.

        Args:
            number: of the job.
            server: that reports it.
            path: of the model's file.
            now: the time.

        Raises:
            ValueError: the server does not hold that job (it was given to another).
        """
        holder, job = self._held.get(number, (None, None))
        if job is None or holder != server:
            raise ValueError(f"server {server} does not hold job {number}")
        del self._held[number]
        following = len(self.models) + self._unannounced + len(self._lost)
        model = ModelRef(self._lost.pop(number, following), path, job.labels, job.target)
        self._unannounced += 1
        return job, model

    def announce(self, models: Sequence[ModelRef]) -> None:
        """Lets workers select with models; of each target, the newest version counts."""
        self._unannounced -= len(models)
        self._add_models(models)

    def models_for(self, worker: int) -> tuple[ModelRef, ...]:
        """Returns the models that a worker selects with: the newest version of each target model."""
        return self.lineages.newest

    # ------------------------------------------------------------------ selections

    def next_grant(self, worker: int, now: float) -> SelectionGrant | Pending:
        """Gives a worker the right to offer its next batch.

        The room in S is kept for it, so that what it selects is offered at once, not held back while models grow newer.

        Args:
            worker: that asks.
            now: the time.

        Raises:
            Stopped: the worker has offered all that it may.
        """
        size = self.batch_size(worker)
        if size == 0:
            raise Stopped
        self.release_worker(worker)  # one that asks again has lost its grant
        if not self.lineages.generations or not self.may_select(worker):
            return Pending(self.changes_for_grant)
        if self.room < size:
            return Pending(Change.ROOM, in_turn=True)
        return self.grant(worker, size)

    def grant(self, worker: int, size: int, decision: Decision | None = None) -> SelectionGrant:
        """Gives a worker the right to offer a batch of `size` ids, for a reason that is to be recorded or for none."""
        grant = SelectionGrant(self.batches[worker], size, self.models_for(worker), decision)
        self._selecting[worker] = grant
        self._promised += size
        return grant

    def unanswered(self, worker: int) -> list[int]:
        """Returns the ids that are chosen and not answered yet, as far as they stay when a worker has selected."""
        grant = self._selecting.get(worker)
        return self.pools.unanswered(grant.version if grant and self._withdraws else NO_MODEL)

    def with_earlier(self, grant: SelectionGrant, versions: int) -> SelectionGrant:
        """Returns a grant whose models are followed by the versions before them, as far as there are so many.

        Args:
            grant: as it was given.
            versions: how many of each target, the newest of them first.
        """
        models = tuple(one for last in grant.models for one in up_to(last, self.models)[:versions])
        return replace(grant, models=models)

    def accepted(self, worker: int, batch: int, ids: Sequence[int]) -> Sequence[int]:
        """Returns which ids of a batch may be offered: all of them.

        Raises:
            ValueError: the worker holds no grant for this batch, or for fewer ids.
        """
        grant = self._selecting.get(worker)
        if grant is None or batch != grant.batch or len(ids) > grant.count:
            raise ValueError(f"worker {worker}: batch {batch} of {len(ids)} is not due")
        return ids

    def surplus(self, size: int, version: int, now: float) -> int:
        """Returns how many queries of models before `version` go back to their shards for a batch of `size` ids."""
        return 0

    def note_offer(self, worker: int, now: float) -> SelectionGrant:
        """Notes that a worker has offered the batch of its grant, which ends; returns the grant."""
        grant = self._selecting[worker]
        self.release_worker(worker)
        return grant

    def count_batch(self, worker: int) -> int:
        """Returns the number of the next batch of a worker, and counts it."""
        self.batches[worker] += 1
        return self.batches[worker] - 1

    # ------------------------------------------------------------------ annotators

    def random_queries(self, asked: int) -> int:
        """Returns how many ids are to be offered at random to annotators who ask for queries."""
        return 0

    def held_out_queries(self) -> int:
        """Returns how many of the ids that are held out are to be offered: all, where no others will come."""
        if not self.pools.held_back:  # as in most runs, whose draws cost nothing more
            return 0
        return self.pools.held_out_due if self.still_to_offer() else self.pools.held_back

    def note_draw(self, drawn: int, waiting: int, now: float, blocked: int = 0) -> None:
        """Notes a draw.

        Args:
            drawn: queries that were leased.
            waiting: annotators who found none.
            now: the time.
            blocked: of these, annotators who have had every query that waits.
        """

    @property
    def room(self) -> int:
        """Queries that S has room for and that no worker is selecting already."""
        return self.pools.queries.room - self._promised

    # ------------------------------------------------------------------ the run

    @property
    def computing(self) -> Computing:
        """Who holds a job or a grant, and so computes."""
        return Computing(len(self._held), len(self._selecting))

    @property
    def held(self) -> list[tuple[int, TrainingJob]]:
        """The servers that train, and their jobs."""
        return list(self._held.values())

    @property
    def budget(self) -> int:
        """Labels that the run buys, as far as the shards go."""
        return self.pools.offered + self.still_to_offer() + self.pools.held_back

    @property
    def finished(self) -> bool:
        """Whether every label that can be bought is bought and in a published model, if any can be trained on."""
        if not self.all_answered or not self.pools.labelled.can_train:
            return self.all_answered
        is_settled = not self._held and not self._returned and not self._unannounced
        return self.pools.labels == self.trained_on and not self.is_revised and is_settled

    @property
    def is_revised(self) -> bool:
        """Whether a label was changed or taken back since a job of some target was given out that reads it."""
        return self.lineages.revision < self.pools.revision

    @property
    def all_answered(self) -> bool:
        """Whether no label will come any more."""
        return self.pools.idle and self.nothing_to_offer

    @property
    def nothing_to_offer(self) -> bool:
        """Whether every id that is to be labelled has been offered."""
        return not self.still_to_offer() and not self.pools.held_back

    @property
    def nothing_computes(self) -> bool:
        """Whether nothing is queried, selected or trained, so that only a new grant or job can move the run."""
        return self.pools.idle and not (self._selecting or self._held or self._returned or self._unannounced)

    def release_server(self, server: int) -> None:
        """Takes back what a dead server held; its job goes to the next idle server before any other."""
        self._idle_servers.pop(server, None)
        for number in [number for number, (holder, _) in self._held.items() if holder == server]:
            self._returned.append(self._held.pop(number)[1])

    def release_worker(self, worker: int) -> None:
        """Takes back the grant of a dead worker."""
        grant = self._selecting.pop(worker, None)
        self._promised -= grant.count if grant else 0

    def restore(
        self,
        batches: Sequence[int],
        models: Sequence[tuple[ModelRef, int]],
        jobs: Sequence[TrainingJob],
        lost: Collection[int] = (),
        outdated: Collection[int] | None = None,
    ) -> None:
        """Goes on where a former hub ended: batches and models count, jobs without a model return.

        Args:
            batches: the worker of every batch that was offered.
            models: (model, number of its job) in order of version.
            jobs: every job that was given out.
            lost: versions whose files are lost; their jobs return too, and make the same versions again.
            outdated: numbers of the jobs that were given out before a label was last changed; None if none ever was.
        """
        self.pools.revision = int(outdated is not None)
        for worker in batches:
            self.count_batch(worker)
        self._lost = {number: model.version for model, number in models if model.version in lost}
        self._add_models([model for model, _ in models if model.version not in lost])
        self.issued = len(jobs)
        for job in jobs:
            self.lineages.note_job(job, int(outdated is not None and job.number not in outdated))
        done = {number for model, number in models if model.version not in lost}
        self._returned = [job for job in jobs if job.number not in done]

    def recall(self, draws: Sequence[float], selections: Sequence[float]) -> None:
        """Takes in how fast a resumed run went on before, where the schedule measures that.

        Args:
            draws: times of the last draws.
            selections: seconds that each of the last selections took.
        """

    def recall_federation(self, state: "FederationState") -> None:
        """Takes in what the clients of a resumed run had sent, where the schedule has some; called after `restore`."""

    def _add_models(self, models: Sequence[ModelRef]) -> None:
        for model in models:
            insort(self.models, model, key=lambda model: model.version)
            self.lineages.note_model(model)
