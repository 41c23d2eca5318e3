"""What annotators call of the hub, and what all of its calls have in common."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from aal.config.errors import RecordFailed, Stopped
from aal.config.settings import Settings
from aal.coordination.answers import CANNOT_TELL, Kind, Said
from aal.coordination.clock import Now
from aal.coordination.interfaces import Record
from aal.coordination.messages import Change, Pending, QueryBatch
from aal.coordination.pools import Outcome, Pools
from aal.coordination.query_pool import NO_MODEL, NO_QUERY
from aal.coordination.schedules.base import Schedule


class AnnotatorCalls:
    """The part of the hub that implements `AnnotatorHub`; see `Hub` for the arguments."""

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        schedule: Schedule,
        classes: int,
        record: Record,
        clock: Now,
        notify: Callable[[Change], None],
        answering: tuple[float | None, float | None],
    ) -> None:
        self._lease_s = settings.annotators.lease_s
        self._pools = pools
        self._schedule = schedule
        self._classes = classes
        self._record = record
        self._clock = clock
        self._notify = notify
        self._lock = threading.RLock()
        self._first_offer_at, self._last_answer_at = answering
        self._idle_annotators = 0
        self._stopped = False
        self._finished = False
        self.paused = False  # whether nobody is given a query

    def draw(self, annotators: Sequence[int], asked_at: Sequence[float], idle: int) -> list[int]:
        """Leases random queries to annotators in the order of asking, as far as S goes.

        Nobody is given an id twice. With `annotators.gold_share` some are known images, which the answer does not tell.

        Where the schedule has ids offered at random, those that S lacks are offered first, and those that are held out
        for testing and validation after so many others.

        Args:
            annotators: who wait for a query; like all columns, Python's own numbers, which SQLite takes as they are.
            asked_at: since when, each.
            idle: how many wait in all; of many, the longest waiting may ask for the others.

        Returns:
            For each annotator an id, `NO_QUERY` where this one has had all that wait; it ends with the last id.

        Raises:
            Stopped: every label is bought, or the run is over.
        """
        with self._lock:
            self._check()
            self._idle_annotators = 0
            if self._schedule.all_answered:
                raise Stopped
            if self.paused:
                return []
            now = self._clock.now()
            self._pools.queries.expire(now)
            for worker, chosen in self._pools.at_random(self._schedule.random_queries(len(annotators))).items():
                self._put_into_pool(QueryBatch(worker, 0, chosen, "random", (), now), now)
            for worker, chosen in self._pools.held_out_at_random(self._schedule.held_out_queries()).items():
                self._put_into_pool(QueryBatch(worker, 0, chosen, "held out", (), now), now)
            had_leases = self._pools.queries.leased
            self._pools.queries.is_last = self._schedule.nothing_to_offer
            drawn = self._pools.draw(annotators, now + self._lease_s)
            rows = [row for row in zip(annotators, asked_at, drawn, strict=False) if row[2] != NO_QUERY]
            self._idle_annotators = max(0, idle - len(rows))
            blocked = len(annotators) - len(rows) if self._pools.queries.waiting else 0
            self._schedule.note_draw(self._pools.queries.leased - had_leases, self._idle_annotators, now, blocked)
            if rows:
                people, since, ids = zip(*rows, strict=True)
                self._record.queries_drawn(people, since, now, ids)
            if rows or blocked:
                self._notify(Change.ROOM if had_leases else Change.ROOM | Change.LEASES)
        self._record.throttle()
        return drawn

    def answer(self, ids: Sequence[int], annotators: Sequence[int], labels: Sequence[int]) -> list[bool]:
        """Takes answers; an id that has all that it needs moves from S to L, once. Returns which were taken.

        When it returns, the taken ones are on disk. Answers are taken even after the shutdown request: they are paid
        for.

        Args:
            ids: that were answered.
            annotators: by whom, each.
            labels: with which class, each; `CANNOT_TELL`: with none.

        Raises:
            Stopped: they could not be written to disk, and were not taken.
            ValueError: a label is not one of the classes.
        """
        for _, annotator, label in zip(ids, annotators, labels, strict=True):
            self._check_label(label, f"annotator {annotator}")
        with self._lock:
            could_draw = self._pools.queries.draws
            outcome = self._pools.answer(ids, annotators, labels)
            said = [
                Said(example, annotator, None if label == CANNOT_TELL else label, kind)
                for example, annotator, label, kind in zip(ids, annotators, labels, outcome.kinds, strict=True)
                if kind is not None
            ]
            if said:
                self._note(said, outcome, could_draw)
        self._flush()
        return [kind is not None for kind in outcome.kinds]

    def undo(self, annotator: int, count: int = 1) -> list[int]:
        """Takes back the last answers of an annotator, who holds their ids again; returns these, the last one first.

        A label that rests on such an answer leaves L until the id is answered again. What a supervisor has decided
        stays. When it returns, it is on disk.

        Args:
            annotator: whose answers.
            count: how many.
        """
        with self._lock:
            self._check()
            could_draw = self._pools.queries.draws
            deadline, outcome, ids = self._clock.now() + self._lease_s, Outcome([], [], []), list[int]()
            while len(ids) < count and (example := self._pools.undo(annotator, deadline, outcome)) is not None:
                ids.append(example)
            if ids:
                self._note([Said(example, annotator, None, Kind.UNDO) for example in ids], outcome, could_draw)
        self._flush()
        return ids

    def correct(self, ids: Sequence[int], labels: Sequence[int], supervisor: int) -> list[bool]:
        """Lets a supervisor decide labels, whatever others answered; the next training uses them.

        Args:
            ids: of images that somebody was asked for.
            labels: the right ones; `CANNOT_TELL`: the image is to have none.
            supervisor: the number of whoever decides, as that of an annotator.

        Returns:
            Of each, whether there was something to correct.

        Raises:
            ValueError: a label is not one of the classes.
        """
        for _, label in zip(ids, labels, strict=True):
            self._check_label(label, f"supervisor {supervisor}")
        with self._lock:
            self._check()
            could_draw, outcome = self._pools.queries.draws, Outcome([], [], [])
            taken = [self._pools.correct(*one, supervisor, outcome) for one in zip(ids, labels, strict=True)]
            said = [
                Said(example, supervisor, None if label == CANNOT_TELL else label, Kind.CORRECTION)
                for example, label, is_taken in zip(ids, labels, taken, strict=True)
                if is_taken
            ]
            if said:
                self._note(said, outcome, could_draw)
        self._flush()
        return taken

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Passes a lease on to another annotator; False where that one has had the id, or nobody holds it."""
        with self._lock:
            is_passed = self._pools.pass_on(example, annotator, other)
            if is_passed:
                self._record.queries_drawn([other], [None], self._clock.now(), [example])
            return is_passed

    def _check_label(self, label: int, who: str) -> None:
        if label != CANNOT_TELL and not 0 <= label < self._classes:
            raise ValueError(f"{who}: label {label} of {self._classes} classes")

    def _note(self, said: Sequence[Said], outcome: Outcome, could_draw: int) -> None:
        """Records what people said and what it came to, and lets those know who wait for it.

        Args:
            said: by annotators.
            outcome: of it.
            could_draw: how often annotators could draw from S before.
        """
        self._last_answer_at = self._clock.now()
        answers = self._pools.answers
        self._record.answered(answers.number, said, outcome.labels, outcome.retired, self._last_answer_at)
        answers.number += len(said)
        changes = Change.LABELS
        if self._pools.idle:
            changes |= Change.IDLE
        if outcome.retired:
            changes |= Change.ROOM
        if self._pools.queries.draws > could_draw:
            changes |= Change.QUERIES
        self._end_if_finished()
        self._notify(changes)

    # ------------------------------------------------------------------ leases, for a clock that waits for them

    def first_deadline(self) -> float | Pending:
        """Returns when the first of the leases may run out."""
        with self._lock:
            self._check()
            deadline = self._pools.queries.first_deadline()
            return Pending(Change.LEASES) if deadline is None else deadline

    def expire_leases(self) -> None:
        """Returns queries whose lease has run out to S."""
        with self._lock:
            if self._pools.queries.expire(self._clock.now()):
                self._notify(Change.QUERIES)

    # ------------------------------------------------------------------ of all calls

    def _put_into_pool(self, batch: QueryBatch, now: float) -> int:
        """Offers a batch under the next number of its worker; returns the number."""
        models = self._schedule.models
        self._pools.offer(batch.worker, batch.ids, max(batch.versions, default=NO_MODEL))
        self._first_offer_at = now if self._first_offer_at is None else self._first_offer_at
        batch = replace(batch, batch=self._schedule.count_batch(batch.worker))
        self._record.batch_offered(batch, models[-1].version if models else None, now)
        return batch.batch

    def stop(self) -> None:
        """Requests shutdown: every role learns of it at its next call."""
        with self._lock:
            self._stopped = True
            self._notify(Change.STOP)

    def _end_if_finished(self) -> None:
        if self._schedule.finished:
            self._finished = True
            self.stop()

    def _flush(self) -> None:
        """Waits until all is on disk. When that fails the run is over: nothing more may be acknowledged."""
        try:
            self._record.flush()
        except RecordFailed:
            self.stop()
            raise Stopped from None

    def _check(self) -> None:
        if self._stopped:
            raise Stopped
