"""The one shared object of a run: both pools, the newest model, the training tickets, the stop word.

Every call takes and gives batches, never waits for another role, and raises `Stopped` once the run is over. Calls may
come from many threads. State changes first, the journal follows in the same order, and an answer is acknowledged only
when it is on disk; so what is on disk is always a state that the run has been in.
"""

import threading
from collections.abc import Sequence
from itertools import compress, count, repeat

import numpy as np

from aal.config.errors import Stopped
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.clock import Clock
from aal.coordination.messages import Computing, ModelRef, QueryBatch, SelectionGrant, Status, TrainedModel, TrainingJob
from aal.coordination.parts import Parts
from aal.coordination.pools import LabeledPool, QueryPool
from aal.coordination.schedule import Schedule
from aal.storage.journal import Journal, JournalFailed, Statement
from aal.storage.resume_state import Past

OFFERED = "INSERT INTO offers VALUES(?,?,?,?,?,?)"
DRAWN = "INSERT INTO waits VALUES(?,?,?,?)"
ANSWERED = "INSERT INTO answers VALUES(?,?,?,?,?)"
NOT_OURS, UNLABELLED, QUERIED, LABELLED = range(4)


class Hub:
    """See the module's text.

    Args:
        settings: of the run.
        parts: where every item begins.
        journal: the durable record, empty.
        clock: the run's time.
        meta: rows of the table `meta`.
        past: what to go on from; None for a new run.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        journal: Journal,
        clock: Clock,
        meta: dict[str, str] | None = None,
        past: Past | None = None,
    ) -> None:
        self._settings = settings
        self._classes = parts.classes
        self._journal = journal
        self._clock = clock
        self._lock = threading.RLock()

        self.queries = QueryPool(settings.pool_bound, derive(settings.seed, "draw", past.draws if past else 0))
        self.labeled = LabeledPool(len(parts.truth), parts.initial, parts.truth[parts.initial])
        self._initial = len(self.labeled)
        self._shards = parts.shards
        self._worker_processes = settings.devices.processes_for(len(parts.shards))
        self._owner = np.full(len(parts.truth), -1, np.int32)
        self._state = np.full(len(parts.truth), NOT_OURS, np.uint8)
        self._state[parts.initial] = LABELLED
        for worker, shard in enumerate(parts.shards):
            self._owner[shard] = worker
            self._state[shard] = UNLABELLED

        self._schedule = Schedule(settings, [len(shard) for shard in parts.shards])
        self._idle_annotators = 0
        self._models: list[ModelRef] = []
        self._accuracy: float | None = None
        self._stopped = False
        self._finished = False
        self._failures: list[str] = []
        self._beats: dict[str, float] = {}
        begin = [("INSERT INTO examples VALUES(?,?,?,?)", parts.rows())] if past is None else self._resumed(past)
        facts = ("INSERT OR REPLACE INTO meta VALUES(?,?)", list((meta or {}).items()))
        self._journal.write(*begin, facts)
        self._journal.flush()

    # ------------------------------------------------------------------ servers

    def ticket(self, server: int) -> TrainingJob | None:
        """Gives the idle server that has waited longest a ticket, when a training is due; ends a run with none left."""
        with self._lock:
            self._beat(f"server-{server}")
            self._check()
            if self._schedule.finished(len(self.labeled), self._idle):
                self._finished = self._stopped = True
                raise Stopped
            ticket = self._schedule.take_ticket(server, len(self.labeled), self._idle)
            if ticket is not None:
                row = (ticket.number, server, ticket.labels, self._clock.now())
                self._journal.write(("INSERT OR REPLACE INTO tickets VALUES(?,?,?,?)", [row]))
            return ticket

    def labels(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns items and labels number `start` to `stop` of L, in order of arrival."""
        with self._lock:
            return self.labeled.between(start, stop)

    def publish(self, trained: TrainedModel) -> int:
        """Makes a model whose file is in place the newest; returns its version. Taken even after the stop word.

        Raises:
            ValueError: the server does not hold that ticket (it was given to another).
        """
        with self._lock:
            self._beat(f"server-{trained.server}")
            ticket = self._schedule.published(trained.ticket, trained.server)
            model = ModelRef(len(self._models), trained.path, ticket.labels)
            row = (
                *(model.version, trained.server, model.labels, trained.started_at, self._clock.now()),
                *(trained.val_accuracy, trained.test_accuracy, trained.path, trained.model, trained.epoch),
                trained.ticket,
            )
            self._journal.write(("INSERT INTO models VALUES(?,?,?,?,?,?,?,?,?,?,?)", [row]))
            self._flush()
            self._models.append(model)
            self._accuracy = trained.test_accuracy
            return model.version

    # ------------------------------------------------------------------ workers

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids of a worker's shard that it has not offered yet."""
        with self._lock:
            shard = self._shards[worker]
            return shard[self._state[shard] == UNLABELLED]

    def turn(self, worker: int) -> SelectionGrant | None:
        """Gives a worker the right to choose its next batch, when the staleness bound allows it and S has room.

        The room is kept for it, so that what is chosen is offered at once, not held back while models grow newer.

        Raises:
            Stopped: the run is over, or this worker has offered all that it may.
        """
        with self._lock:
            self._beat(f"worker-{worker % self._worker_processes}")
            self._check()
            size = self._schedule.next_count(worker)
            if size == 0:
                raise Stopped
            self._schedule.stop_choosing(worker)  # one that asks again has lost its turn
            if self.room < size or not self._schedule.admits(worker, len(self.labeled), self._idle):
                return None
            self._schedule.begin_choosing(worker)
            return SelectionGrant(self._schedule.batches[worker], size, (self._models[-1],))

    def offer(self, offer: QueryBatch) -> None:
        """Puts the batch into S that a worker had the turn to choose.

        Raises:
            ValueError: an item is not an unlabelled one of this worker's shard, or it had no turn for this batch.
        """
        with self._lock:
            self._beat(f"worker-{offer.worker % self._worker_processes}")
            self._check()
            items = np.array(offer.items, np.int64)
            due = self._schedule.is_choosing(offer.worker) and offer.batch == self._schedule.batches[offer.worker]
            if not due or len(items) > self._schedule.next_count(offer.worker):
                raise ValueError(f"worker {offer.worker}: batch {offer.batch} of {len(items)} is not due")
            mine = (self._owner[items] == offer.worker) & (self._state[items] == UNLABELLED)
            if not mine.all() or len(np.unique(items)) != len(items):
                raise ValueError(f"worker {offer.worker}: offers items that are not unlabelled ones of its shard")
            now, newest = self._clock.now(), self._models[-1].version
            origin = (offer.worker, offer.strategy, offer.version, newest, now)
            self.queries.offer(offer.items)
            self._state[items] = QUERIED
            self._schedule.note_offer(offer.worker, len(items))
            chosen = (offer.worker, offer.batch, offer.strategy, offer.version, len(items), offer.started_at, now)
            self._journal.write(
                (OFFERED, [(item, *origin) for item in offer.items]),
                ("INSERT INTO selections VALUES(?,?,?,?,?,?,?)", [chosen]),
            )

    # ------------------------------------------------------------------ annotators

    def draw(self, annotators: Sequence[int], asked_at: Sequence[float], idle: int) -> list[int]:
        """Serves annotators in the order of asking, as far as S goes.

        Args:
            annotators: who wait for a query; like all columns, Python's own numbers, for they go to SQLite as they are.
            asked_at: since when, each.
            idle: how many wait in all; of many, the longest waiting may ask for the others.

        Returns:
            The items for the first ones, one each.
        """
        with self._lock:
            self._beat("annotators")
            self._check()
            now = self._clock.now()
            self.queries.expire(now)
            deadline = now + self._settings.annotators.lease_s
            items = self.queries.draw(annotators, deadline)
            self._idle_annotators = idle - len(items)
            if items:
                self._journal.write((DRAWN, zip(annotators, asked_at, repeat(now), items)))
            return items

    def answer(self, items: Sequence[int], annotators: Sequence[int], labels: Sequence[int]) -> list[bool]:
        """Moves answered items from S to L, once; returns for each answer whether it was taken.

        When it returns, the taken ones are on disk. Answers are taken even after the stop word: they are paid for.

        Args:
            items: that were answered.
            annotators: by whom, each.
            labels: with which class, each.

        Raises:
            Stopped: they could not be written to disk, and were not taken.
            ValueError: a label is not one of the classes.
        """
        for _, annotator, label in zip(items, annotators, labels, strict=True):
            if not 0 <= label < self._classes:
                raise ValueError(f"annotator {annotator}: label {label} of {self._classes} classes")
        with self._lock:
            now, arrival = self._clock.now(), len(self.labeled) - self._initial
            taken = list(map(self.queries.settle, items, annotators))
            new, people, classes = (list(compress(column, taken)) for column in (items, annotators, labels))
            if new:
                self.labeled.add(new, classes)
                self._state[new] = LABELLED
                self._journal.write((ANSWERED, zip(count(arrival), new, people, classes, repeat(now))))
        self._flush()  # outside the lock: others go on while the disk syncs
        return taken

    # ------------------------------------------------------------------ the engine

    def release(self, role: str, index: int) -> None:
        """Takes back what a role held that died: a server's ticket, a worker's turn, the annotators' leases."""
        with self._lock:
            if role == "server":
                self._schedule.return_tickets(index)
            elif role == "worker":
                self._schedule.stop_choosing(index)
            elif role == "annotators":  # all of them, for they share a process
                self._idle_annotators = 0
                self.queries.release_all()

    def status(self) -> Status:
        """Returns how far the run is."""
        with self._lock:
            return Status(
                seconds=self._clock.now(),
                labels=len(self.labeled) - self._initial,
                budget=self._schedule.offered + self._schedule.still_to_offer(),
                waiting=self.queries.waiting,
                idle_annotators=self._idle_annotators,
                version=self._models[-1].version if self._models else None,
                test_accuracy=self._accuracy,
                finished=self._finished,
                failure=str(self._journal.failure) if self._journal.failure else None,
            )

    def check(self, name: str) -> Computing:
        """Notes that a role at work goes on and returns how many are at work; raises `Stopped` once the run is over."""
        with self._lock:
            self._beat(name)
            self._check()
            return self._schedule.computing

    def silent(self) -> dict[str, float]:
        """Returns for each role how many seconds it has given no sign of life."""
        with self._lock:
            now = self._clock.now()
            return {name: now - beat for name, beat in self._beats.items()}

    def stop(self) -> None:
        """Says the stop word: every waiting role is told at its next call."""
        with self._lock:
            self._stopped = True

    def failed(self, role: str, reason: str) -> None:
        """Keeps a role's own words about why it fails."""
        with self._lock:
            self._failures.append(f"{role}: {reason}")

    def failures(self) -> list[str]:
        """Returns what failing roles said, first failure first."""
        with self._lock:
            return list(self._failures)

    def close(self, ended: str) -> str | None:
        """Ends the record of the run.

        Args:
            ended: `finished`, `interrupted` or `failed: why`.

        Returns:
            Why the record could not be written to its end, or None.
        """
        with self._lock:
            self._stopped = True
            rows = [("ended", ended), ("wall_s", f"{self._clock.now():.3f}")]
            self._journal.write(("INSERT OR REPLACE INTO meta VALUES(?,?)", rows))
        self._journal.close()
        return str(self._journal.failure) if self._journal.failure else None

    @property
    def room(self) -> int:
        """Queries that S still has room for, and that no worker is choosing already."""
        return self.queries.room - self._schedule.promised

    @property
    def _idle(self) -> bool:
        return not self.queries.waiting and not self.queries.leased

    def _flush(self) -> None:
        """Waits until all is on disk. When that fails the run is over: nothing more may be acknowledged."""
        try:
            self._journal.flush()
        except JournalFailed:
            self._stopped = True
            raise Stopped from None

    def _beat(self, name: str) -> None:
        self._beats[name] = self._clock.now()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def _resumed(self, past: Past) -> list[Statement]:
        """Takes in what was; items that nobody has labelled wait in S again, whoever held them."""
        if past.answers:
            items, labels = map(list, zip(*past.answers, strict=True))
            self.labeled.add(items, labels)
            self._state[items] = LABELLED
        self.queries.offer(past.open)
        self._state[past.open] = QUERIED
        self._schedule.resume(past)
        self._models = [model for model, _ in past.models]
        self._accuracy = past.test_accuracy
        return [
            ("DELETE FROM meta WHERE key IN (VALUES(?))", [("ended",), ("wall_s",)]),
            ("INSERT INTO breaks VALUES(?,?,?)", [(past.seconds, self._clock.now(), past.ended)]),
        ]
