"""The one shared object of a run: both pools, the newest model, the training tickets, the stop word.

Every call takes and gives batches, never waits for another role, and raises `Stopped` once the run is over. Calls may
come from many threads. State changes first, the journal follows in the same order, and an answer is acknowledged only
when it is on disk; so what is on disk is always a state that the run has been in.
"""

import threading
from dataclasses import dataclass

import numpy as np

from aal.clock import Clock
from aal.config import Settings
from aal.errors import Stopped
from aal.journal import Journal
from aal.messages import Answer, Ask, ModelRef, Offer, Query, Status, TrainedModel, TrainingTicket, Turn
from aal.pools import LabeledPool, QueryPool
from aal.schedule import Schedule
from aal.seeding import derive

NOT_OURS, UNLABELLED, QUERIED, LABELLED = range(4)


@dataclass(frozen=True)
class Parts:
    """Where every item of the set begins; together they hold each id once.

    Attributes:
        classes: number of classes, the bound of a label.
        truth: (n,) the true label of every id.
        test, validation, initial: ids; the initial ones are labelled truly from the start.
        shards: the unlabelled ids of each worker.
    """

    classes: int
    truth: np.ndarray
    test: np.ndarray
    validation: np.ndarray
    initial: np.ndarray
    shards: list[np.ndarray]


class Hub:
    """See the module's text.

    Args:
        settings: of the run.
        parts: where every item begins.
        journal: the durable record, empty.
        clock: the run's time.
        meta: rows of the table `meta`.
    """

    def __init__(
        self, settings: Settings, parts: Parts, journal: Journal, clock: Clock, meta: dict[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._classes = parts.classes
        self._journal = journal
        self._clock = clock
        self._lock = threading.RLock()

        self.queries = QueryPool(settings.pool_bound, derive(settings.seed, "draw"))
        self.labeled = LabeledPool(parts.initial.tolist(), parts.truth[parts.initial].tolist())
        self._initial = len(self.labeled)
        self._shards = parts.shards
        self._owner = np.full(len(parts.truth), -1, np.int32)
        self._state = np.full(len(parts.truth), NOT_OURS, np.uint8)
        self._state[parts.initial] = LABELLED
        for worker, shard in enumerate(parts.shards):
            self._owner[shard] = worker
            self._state[shard] = UNLABELLED

        self._schedule = Schedule(settings, [len(shard) for shard in parts.shards])
        self._asking: set[int] = set()
        self._models: list[ModelRef] = []
        self._accuracy: float | None = None
        self._stopped = False
        self._finished = False
        self._failures: list[str] = []
        self._record_start(parts, meta or {})

    # ------------------------------------------------------------------ servers

    def ticket(self, server: int) -> TrainingTicket | None:
        """Gives the idle server that has waited longest a ticket, when a training is due; ends a run with none left."""
        with self._lock:
            self._check()
            if self._schedule.finished(len(self.labeled), self._idle):
                self._finished = self._stopped = True
                raise Stopped
            return self._schedule.take_ticket(server, len(self.labeled), self._idle)

    def labels(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns items and labels number `start` to `stop` of L, in order of arrival."""
        with self._lock:
            return self.labeled.between(start, stop)

    def publish(self, trained: TrainedModel) -> int:
        """Makes a model whose file is in place the newest; returns its version.

        Raises:
            ValueError: the server does not hold that ticket (it was given to another).
        """
        with self._lock:
            self._check()
            ticket = self._schedule.published(trained.ticket, trained.server)
            model = ModelRef(len(self._models), trained.path, ticket.labels)
            row = (
                *(model.version, trained.server, model.labels, trained.started_at, self._clock.now()),
                *(trained.val_accuracy, trained.test_accuracy, trained.path, trained.model, trained.epoch),
                trained.ticket,
            )
            self._journal.write("INSERT INTO models VALUES(?,?,?,?,?,?,?,?,?,?,?)", [row])
            self._journal.flush()
            self._models.append(model)
            self._accuracy = trained.test_accuracy
            return model.version

    # ------------------------------------------------------------------ workers

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids of a worker's shard that it has not offered yet."""
        with self._lock:
            shard = self._shards[worker]
            return shard[self._state[shard] == UNLABELLED]

    def turn(self, worker: int) -> Turn | None:
        """Gives a worker the right to choose its next batch, when the staleness bound and S allow it.

        Raises:
            Stopped: the run is over, or this worker has offered all that it may.
        """
        with self._lock:
            self._check()
            count = self._schedule.next_count(worker)
            if count == 0:
                raise Stopped
            if self.queries.room < count or not self._schedule.admits(worker, len(self.labeled), self._idle):
                return None
            self._schedule.begin_choosing(worker)
            return Turn(self._schedule.batches[worker], count, self._models[-1])

    def offer(self, offer: Offer) -> bool | None:
        """Puts a worker's batch into S; None while S is too full for it.

        Raises:
            ValueError: an item is not an unlabelled one of this worker's shard, or the batch is not its next one.
        """
        with self._lock:
            self._check()
            items = np.array(offer.items, np.int64)
            if offer.batch != self._schedule.batches[offer.worker] or len(items) > self._schedule.next_count(
                offer.worker
            ):
                raise ValueError(f"worker {offer.worker}: batch {offer.batch} of {len(items)} is not due")
            mine = (self._owner[items] == offer.worker) & (self._state[items] == UNLABELLED)
            if not mine.all() or len(np.unique(items)) != len(items):
                raise ValueError(f"worker {offer.worker}: offers items that are not unlabelled ones of its shard")
            if self.queries.room < len(items):
                return None
            now, newest = self._clock.now(), self._models[-1].version
            origin = (offer.worker, offer.strategy, offer.version, newest, now)
            self.queries.offer(Query(item, *origin) for item in offer.items)
            self._state[items] = QUERIED
            self._schedule.note_offer(offer.worker, len(items))
            self._journal.write(
                "INSERT INTO queries(item,worker,strategy,version,newest,offered_at) VALUES(?,?,?,?,?,?)",
                [(item, *origin) for item in offer.items],
            )
            self._journal.write(
                "INSERT INTO selections VALUES(?,?,?,?,?,?,?)",
                [(offer.worker, offer.batch, offer.strategy, offer.version, len(items), offer.started_at, now)],
            )
            return True

    # ------------------------------------------------------------------ annotators

    def draw(self, asks: list[Ask]) -> list[tuple[int, Query]]:
        """Serves annotators in the order of `asks`, as far as S goes; returns (annotator, query) of the served."""
        with self._lock:
            self._check()
            now = self._clock.now()
            self.queries.expire(now)
            deadline = now + self._settings.annotators.lease_s
            served: list[tuple[int, Query]] = []
            waits = []
            for ask in asks:
                query = self.queries.draw(ask.annotator, deadline)
                if query is None:
                    self._asking.add(ask.annotator)
                    continue
                self._asking.discard(ask.annotator)
                served.append((ask.annotator, query))
                waits.append((ask.annotator, ask.asked_at, now))
            self._journal.write("INSERT INTO waits VALUES(?,?,?)", waits)
            self._journal.write(
                "UPDATE queries SET drawn_at=?, annotator=? WHERE item=?",
                [(now, annotator, query.item) for annotator, query in served],
            )
            return served

    def answer(self, answers: list[Answer]) -> list[bool]:
        """Moves answered items from S to L, once; returns for each answer whether it was taken.

        When it returns, the taken ones are on disk. Answers are taken even after the stop word: they are paid for.

        Raises:
            ValueError: a label is not one of the classes.
        """
        taken = []
        with self._lock:
            rows = []
            for answer in answers:
                if not 0 <= answer.label < self._classes:
                    raise ValueError(f"annotator {answer.annotator}: label {answer.label} of {self._classes} classes")
                taken.append(self.queries.settle(answer.item, answer.annotator) is not None)
                if taken[-1]:
                    self.labeled.add(answer.item, answer.label)
                    self._state[answer.item] = LABELLED
                    rows.append((self._clock.now(), answer.label, answer.annotator, answer.item))
            self._journal.write("UPDATE queries SET answered_at=?, label=?, annotator=? WHERE item=?", rows)
        self._journal.flush()  # outside the lock: others go on while the disk syncs
        return taken

    # ------------------------------------------------------------------ the engine

    def release(self, role: str, index: int) -> None:
        """Takes back what a dead role held: a server's ticket, a worker's turn, an annotator's leases."""
        with self._lock:
            if role == "server":
                self._schedule.return_tickets(index)
            elif role == "worker":
                self._schedule.stop_choosing(index)
            elif role == "annotator":
                self._asking.discard(index)
                self.queries.release(index)

    def status(self) -> Status:
        """Returns how far the run is; leases that have run out return to S, even when nobody draws."""
        with self._lock:
            self.queries.expire(self._clock.now())
            return Status(
                seconds=self._clock.now(),
                labels=len(self.labeled) - self._initial,
                budget=self._schedule.offered + self._schedule.still_to_offer(),
                waiting=self.queries.waiting,
                leased=self.queries.leased,
                idle_annotators=len(self._asking),
                version=self._models[-1].version if self._models else None,
                test_accuracy=self._accuracy,
                finished=self._finished,
            )

    def check(self) -> None:
        """Raises `Stopped` once the run is over; for roles in the middle of long work."""
        with self._lock:
            self._check()

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

    def close(self, ended: str) -> None:
        """Ends the record of the run.

        Args:
            ended: `finished`, `interrupted` or `failed: why`.
        """
        with self._lock:
            self._stopped = True
            now = self._clock.now()
            self._journal.write("INSERT OR REPLACE INTO meta VALUES(?,?)", [("ended", ended), ("wall_s", f"{now:.3f}")])
            self._journal.close()

    @property
    def _idle(self) -> bool:
        return not self.queries.waiting and not self.queries.leased

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def _record_start(self, parts: Parts, meta: dict[str, str]) -> None:
        places: list[tuple[np.ndarray, str, int | None]] = [
            *((getattr(parts, name), name, None) for name in ("test", "validation", "initial")),
            *((shard, "shard", worker) for worker, shard in enumerate(parts.shards)),
        ]
        for items, part, worker in places:
            truth = parts.truth[items].tolist()
            rows = [(item, part, worker, label) for item, label in zip(items.tolist(), truth, strict=True)]
            self._journal.write("INSERT INTO examples VALUES(?,?,?,?)", rows)
        self._journal.write("INSERT OR REPLACE INTO meta VALUES(?,?)", meta.items())
        self._journal.flush()
