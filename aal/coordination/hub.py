"""The one shared object of a run: the pools, the models, the schedule, behind one lock.

Every call takes and gives batches, returns at once, and raises `Stopped` once the run is over. Calls may come from many
threads. State changes first and the record follows in the same order; an answer is acknowledged, and a model announced,
only when it is on disk. So what is on disk is always a state that the run has been in, and no call waits for the disk
while it holds the lock.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from aal.config.settings import Settings
from aal.coordination.attendance import Attendance
from aal.coordination.clock import Now
from aal.coordination.interfaces import Record
from aal.coordination.messages import (
    Change,
    Computing,
    ModelRef,
    Pending,
    QueryBatch,
    SelectionGrant,
    Status,
    TrainedModel,
    Training,
    TrainingJob,
)
from aal.coordination.partition import HeldOutLabels
from aal.coordination.pools import Pools
from aal.coordination.schedules.base import Schedule


class Hub(Attendance):
    """See the module's text; implements `ServerHub`, `WorkerHub`, `AnnotatorHub` and `PeopleHub`.

    Args:
        settings: of the run.
        pools: where every example is.
        schedule: on these pools.
        classes: number of classes, the bound of a label.
        record: the durable record.
        clock: the run's time.
        notify: called, under the lock, with what has changed.
        tested: test accuracy of the newest model of a resumed run, and on how many images.
        answering: times of its first offer and its last answer.
    """

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        schedule: Schedule,
        classes: int,
        record: Record,
        clock: Now,
        notify: Callable[[Change], None] = lambda change: None,
        tested: tuple[float | None, int] = (None, 0),
        answering: tuple[float | None, float | None] = (None, None),
    ) -> None:
        super().__init__(settings, pools, schedule, classes, record, clock, notify, answering)
        self._first_person = settings.annotators.number if settings.people.label else None
        self._fitting = threading.Lock()  # one aggregation at a time, which no draw waits for
        self._settled: list[tuple[ModelRef, TrainedModel]] = []  # on their way to the disk, in order of version
        self._tested = tested
        self._warning = ""
        self._given_at: dict[int, float] = {}  # of each job
        self._end_if_finished()

    # ------------------------------------------------------------------ servers

    def job(self, server: int) -> TrainingJob | Pending:
        """Gives the idle server that has waited longest a job, when a training is due."""
        with self._lock:
            self._check()
            now = self._clock.now()
            job = self._schedule.next_job(server, now)
            if isinstance(job, TrainingJob):
                self._given_at[job.number] = now
                self._record.job_given(job, server, now)
        if isinstance(job, TrainingJob):
            self._revise_labels()
        return job

    def _revise_labels(self) -> None:
        """Lets the aggregation learn from all answers, and L hold what it makes of them."""
        with self._fitting:
            with self._lock:
                answers = self._pools.answers
                columns = answers.columns()
            found = answers.aggregation.fit(*columns)
            if found is not None:
                with self._lock:
                    if changed := self._pools.revise(*found):
                        self._record.labels_revised(changed)

    def labels(self, start: int, stop: int, owner: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels number `start` to `stop` of L, in order of arrival, as int64 arrays.

        Those whose label was taken back are left out, and those that are held out.

        Args:
            start: first of them.
            stop: end of them.
            owner: a worker, to have only those that began in its shard; None for all.
        """
        with self._lock:
            ids, labels = self._pools.labelled.between(start, stop)
            if owner is None:
                return ids, labels
            owned = self._pools.owned(ids, owner)
            return ids[owned], labels[owned]

    def held_out(self, stop: int) -> HeldOutLabels:
        """Returns the labels that are held out for testing and validation, of the first `stop` of L."""
        with self._lock:
            return self._pools.labelled.held_out(stop)

    def publish(self, trained: TrainedModel) -> int:
        """Makes a model whose file is in place the newest; returns its version. Taken even after the shutdown request.

        Raises:
            ValueError: the server does not hold that job (it was given to another).
        """
        with self._lock:
            now = self._clock.now()
            job, model = self._schedule.settle(trained.job, trained.server, trained.path, now)
            self._record.model_published(model.version, job, trained, now)
            self._settled.append((model, trained))
            if trained.warning:
                self._warning = self._warning or f"model v{model.version}: {trained.warning}"
        self._flush()
        with self._lock:
            # What was recorded before this model is on disk too: versions are announced in order, by the first thread
            # that comes here.
            count = next((place for place, (other, _) in enumerate(self._settled, 1) if other is model), 0)
            announced, self._settled = self._settled[:count], self._settled[count:]
            if announced:
                self._schedule.announce([other for other, _ in announced])
                newest = self._schedule.models[-1].version
                for other, its in announced:
                    if other.version == newest and its.test_accuracy is not None:
                        self._tested = its.test_accuracy, its.test_images
                self._end_if_finished()
                self._notify(Change.MODELS)
            return model.version

    # ------------------------------------------------------------------ workers

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids that are in a worker's shard, int64 (n,)."""
        with self._lock:
            return self._pools.remaining(worker)

    def unanswered(self, worker: int) -> np.ndarray:
        """Returns the ids that are chosen and not answered yet, int64, as far as they stay when a worker has selected.

        It is no part of a grant: there may be very many, and few selections ask.
        """
        with self._lock:
            return np.array(self._schedule.unanswered(worker), np.int64)

    def grant(self, worker: int, versions: int = 1) -> SelectionGrant | Pending:
        """Gives a worker, which selects with so many versions, its next batch to offer, when it may and S has room.

        Raises:
            Stopped: the run is over, or this worker has offered all that it may.
        """
        with self._lock:
            self._check()
            grant = self._schedule.next_grant(worker, self._clock.now())
            return grant if isinstance(grant, Pending) else self._schedule.with_earlier(grant, versions)

    def offer(self, batch: QueryBatch) -> None:
        """Puts the batch into S that a worker selected for its grant.

        Under a schedule that withdraws queries, those that older models chose go back to their shards in its place.

        Raises:
            ValueError: an id is not an unlabelled one of this worker's shard, or it has no grant for this batch.
        """
        with self._lock:
            self._check()
            now, version = self._clock.now(), max(batch.versions)
            ids = self._schedule.accepted(batch.worker, batch.batch, batch.ids)
            # Recorded first: a record that ends between the two holds fewer queries than the budget, never more.
            if withdrawn := self._pools.withdraw(version, self._schedule.surplus(len(ids), version, now)):
                self._record.queries_withdrawn(withdrawn, version, now)
            number = self._put_into_pool(replace(batch, ids=list(ids)), now)
            grant = self._schedule.note_offer(batch.worker, now)
            if grant.decision is not None:
                self._record.selection_granted(batch.worker, number, grant.count, grant.decision)
            self._notify(Change.QUERIES | Change.ROOM)  # room, for the batch may be smaller than its grant
        self._record.throttle()

    # ------------------------------------------------------------------ the engine

    def release(self, role: str, index: int) -> None:
        """Takes back what a role held that died: a server's job, a worker's grant, the annotators' leases."""
        with self._lock:
            if role == "server":
                self._schedule.release_server(index)
            elif role == "worker":
                self._schedule.release_worker(index)
            elif role == "annotators":  # all of them, for they share a process; people keep what is on their screens
                self._idle_annotators = 0
                self._pools.queries.release_all(self._first_person)
            self._notify(Change.LABELS | Change.ROOM | Change.QUERIES)

    def computing(self) -> Computing:
        """Returns how many roles compute; raises `Stopped` once the run is over."""
        with self._lock:
            self._check()
            return self._schedule.computing

    def status(self) -> Status:
        """Returns how far the run is."""
        with self._lock:
            models, now, bought = self._schedule.models, self._clock.now(), self._pools.labels - self._pools.initial
            first, last = self._first_offer_at, self._last_answer_at
            return Status(
                seconds=now,
                labels=bought,
                budget=self._schedule.budget,
                waiting=self._pools.queries.waiting,
                idle_annotators=self._idle_annotators,
                version=models[-1].version if models else None,
                test_accuracy=self._tested[0],
                test_images=self._tested[1],
                finished=self._finished,
                failure=self._record.failure,
                interrupted=self.interrupted,
                paused=self.paused,
                computing=self._schedule.computing,
                warning=self._warning,
                initial=self._pools.initial,
                labels_per_s=bought / (last - first)
                if first is not None and last is not None and last > first
                else None,
                trainings=[
                    Training(server, job.labels, now - self._given_at[job.number])
                    for server, job in self._schedule.held
                ],
            )

    def close(self, ended: str, **facts: str) -> str | None:
        """Ends the record of the run.

        Args:
            ended: `finished`, `interrupted` or `failed: why`.
            **facts: of the run as a whole, for its record.

        Returns:
            Why the record could not be written to its end, or None.
        """
        self.stop()
        self._record.close(ended, self._clock.now(), **facts)
        return self._record.failure
