"""Selection just in time (`max_staleness: auto`): nobody waits for a training, and S holds no more than is drawn."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aal.config.errors import Stopped
from aal.config.settings import Settings
from aal.coordination.demand import DrawRate, Estimate, Safety, lead_time_demand
from aal.coordination.messages import Change, Decision, ModelRef, Pending, SelectionGrant, TrainingJob
from aal.coordination.schedules.asynchronous import Asynchronous
from aal.coordination.schedules.base import Schedule

if TYPE_CHECKING:
    from aal.coordination.pools import Pools

ASKED_WITHIN_S = 1.0  # a worker that waits asks more often than that, unless it hangs
UNTIL = Change.ROOM | Change.MODELS | Change.IDLE


class JustInTime(Asynchronous):
    """As `Asynchronous`, but a selection is due when S falls under a mark, whatever the models do.

    The mark is what annotators draw during a selection, and a safety. A batch holds what they draw until queries of the
    next model can be there, at most `query_batch`. With `withdraw_stale` a selection is also due when a newer model is
    there and has many to replace: when its batch comes, queries that older models chose go back to their shards. Any
    worker may offer what is left of the budget; the one that has waited longest selects. Until the first of their
    batches comes, annotators who find S empty get ids at random.
    """

    def __init__(self, settings: Settings, pools: "Pools") -> None:
        super().__init__(settings, pools)
        self._withdraws = settings.withdraw_stale is not False
        self._rate = DrawRate(max(20, 4 * settings.annotators.number))
        self._lead = Estimate()  # of a selection: from when it is due until its batch is in S
        self._training = Estimate()  # seconds of a training for each of its labels
        self._safety = Safety()
        self._waiting_workers: dict[int, float] = {}  # in the order of asking, and when each asked last
        self._since: dict[int, float] = {}  # of each worker that selects: when that was due
        self._given: dict[int, float] = {}  # of each job
        self._due_since: float | None = None
        self._has_selected = False
        self._missed = False
        self._waiting_annotators = 0
        self._blocked = 0  # annotators who have had all that waits
        self._answers = settings.annotators.answers_per_item  # draws for each id; what S holds is counted in draws

    @classmethod
    def pool_bound(cls, settings: Settings) -> int:
        """Returns the budget, unless `query_pool_size` is given: the mark keeps S small."""
        return settings.query_pool_size or settings.budget

    # ------------------------------------------------------------------ trainings

    def training_due(self) -> bool:
        """Whether L has grown by the threshold, or by the first answers of a run that began without labels.

        The initial model, of each target, is the first one: no other training begins before it is there.
        """
        if self.issued >= self.lineages.number and not self.lineages.generations:
            return False
        if self.issued < self.lineages.number and not self.pools.initial:
            s, labels = self.settings, self.pools.labels
            return labels >= min(s.query_batch, s.server_train_threshold) or (labels > 0 and self.all_answered)
        return super().training_due()

    def next_job(self, server: int, now: float) -> TrainingJob | Pending:
        """See the base; notes when a training begins."""
        job = super().next_job(server, now)
        if isinstance(job, TrainingJob):
            self._given[job.number] = now
        return job

    def settle(self, number: int, server: int, path: str, now: float) -> tuple[TrainingJob, ModelRef]:
        """See the base; notes how long a training took."""
        job, model = super().settle(number, server, path, now)
        self._training.note((now - self._given.pop(number, now)) / max(1, job.labels))
        return job, model

    # ------------------------------------------------------------------ selections

    def batch_size(self, worker: int) -> int:
        """Returns the largest batch of a worker, as far as its shard and the budget go."""
        return min(self.settings.query_batch, self.pools.left(worker), self.still_to_offer())

    def still_to_offer(self) -> int:
        """Returns what is left of the budget of all workers together, as far as the shards go."""
        left = self.settings.budget - self.pools.offered - self.pools.held_back
        return max(0, min(left, self.pools.unlabelled))

    nothing_to_offer = Schedule.nothing_to_offer  # what is left of all workers together takes no search

    def _within_bound(self, worker: int) -> bool:
        return True

    def may_select(self, worker: int) -> bool:
        """Whether no other worker has waited longer; one that no longer asks loses its place."""
        since = self._waiting_workers[worker] - ASKED_WITHIN_S
        return worker == next(other for other, at in self._waiting_workers.items() if other == worker or at > since)

    def next_grant(self, worker: int, now: float) -> SelectionGrant | Pending:
        """Gives a worker the right to select, when that is due and no other worker has waited longer.

        Raises:
            Stopped: every label is bought.
        """
        if self.all_answered:
            raise Stopped
        if worker in self._selecting:  # one that asks again has lost its grant
            self.release_worker(worker)
        if not self.models:
            return Pending(Change.MODELS)
        if not self.pools.left(worker):
            self._waiting_workers.pop(worker, None)
            return Pending(UNTIL)
        self._waiting_workers[worker] = now
        if not self.may_select(worker):
            return Pending(UNTIL, in_turn=True)
        size, decision = self._decide(worker, now)
        if size <= 0:
            self._due_since = None
            late_at = [at for at in map(self._late_at, self._selecting) if now < at < math.inf]
            return Pending(UNTIL, in_turn=True, at=min(late_at, default=None))
        del self._waiting_workers[worker]
        self._since[worker] = now if self._due_since is None else self._due_since
        self._due_since = None
        return self.grant(worker, size, decision)

    def _decide(self, worker: int, now: float) -> tuple[int, Decision]:
        """Returns how many ids a worker may select, 0 while nothing is due, and what led to it."""
        queries, newest = self.pools.queries, max(model.version for model in self.models_for(worker))
        rate, older = self._rate.per_s(now), queries.older(newest) if self._withdraws else 0
        selecting, by_newest = self._being_selected(newest, now)
        mark, demand = self._mark(rate, now)
        stock, replaced, reason = queries.draws + selecting * self._answers, 0, "low"
        outdated = older * self._answers
        if self._blocked and not selecting:  # they have had all that there is
            stock = 0
        elif stock > mark and outdated - demand > demand and not by_newest:  # else more is drawn than is replaced
            stock, replaced, reason = stock - outdated, older, "newer model"
        seconds, deviations = self._lead.mean, self._safety.deviations
        decision = Decision(now, reason, queries.waiting, selecting, older, mark, rate, seconds, deviations)
        if stock > mark:
            return 0, decision
        left = min(self.still_to_offer(), queries.bound - queries.waiting) - selecting + replaced
        allowed = min(self.settings.query_batch, self.pools.left(worker), left)
        lacking = math.ceil((self._wanted(rate, mark, demand, now) - stock) / self._answers)
        return min(allowed, max(1, lacking)), decision

    def _mark(self, rate: float | None, now: float) -> tuple[int, float]:
        """Returns the queries at which a selection is due, and how many of them are drawn during one on average.

        While the first selection is made, one takes at least as long as that has taken by now.
        """
        if rate is None:
            return 0, 0.0
        if self._lead.mean is None:
            demand = rate * (now - min(self._since.values(), default=now))
            return min(math.ceil(demand), self._highest_mark), demand
        mean, deviation = lead_time_demand(rate, self._lead)
        return min(math.ceil(mean + self._safety.deviations * deviation), self._highest_mark), mean

    @property
    def _highest_mark(self) -> int:
        """The draws above which S has no room for a whole batch."""
        return max(0, self.pools.queries.bound - self.settings.query_batch) * self._answers

    def _wanted(self, rate: float | None, mark: int, demand: float, now: float) -> int:
        """Returns the queries that are needed until the next model can choose others; many, where that is not known."""
        trainings = [(now - self._given.get(job.number, now), job.labels) for _, job in self._held.values()]
        if rate is None or self._training.mean is None or not trainings:
            return mark + self.settings.query_batch * self._answers
        per_label = self._training.mean
        # One that is late by some time is expected to be so for as long again.
        remaining = min(abs(per_label * labels - elapsed) for elapsed, labels in trainings)
        return mark + math.ceil(demand + rate * remaining)

    def _being_selected(self, version: int, now: float) -> tuple[int, int]:
        """Returns the ids that are being selected, those of late workers not counted; and of them, by `version`."""
        grants = [grant for worker, grant in self._selecting.items() if now < self._late_at(worker)]
        return sum(grant.count for grant in grants), sum(grant.count for grant in grants if grant.version >= version)

    def _late_at(self, worker: int) -> float:
        """Returns from when on a worker that selects is no longer counted on."""
        return self._since[worker] + self._lead.late_after

    def accepted(self, worker: int, batch: int, ids: Sequence[int]) -> Sequence[int]:
        """Returns which ids of a batch may be offered: those that nobody has been given meanwhile.

        Raises:
            ValueError: the worker holds no grant for this batch, or for fewer ids.
        """
        ids = self.pools.still_there(super().accepted(worker, batch, ids))
        older = self.pools.queries.older(self._selecting[worker].version) if self._withdraws else 0
        return ids[: self.still_to_offer() + older]

    def surplus(self, size: int, version: int, now: float) -> int:
        """Returns how many queries of models before `version` are not needed when a batch of `size` ids comes."""
        if not self._withdraws:
            return 0
        mark, _ = self._mark(self._rate.per_s(now), now)
        kept = math.ceil(mark / self._answers)
        return max(self.pools.queries.waiting + size - max(kept, size), size - self.still_to_offer())

    def note_offer(self, worker: int, now: float) -> SelectionGrant:
        """See the base; notes how long the selection took, and whether somebody found S empty meanwhile."""
        self._lead.note(now - self._since[worker])
        self._safety.note(self._missed)
        self._has_selected, self._missed = True, False
        return super().note_offer(worker, now)

    def release_worker(self, worker: int) -> None:
        """See the base; a worker that is gone waits no longer."""
        super().release_worker(worker)
        self._since.pop(worker, None)
        self._waiting_workers.pop(worker, None)

    def recall(self, draws: Sequence[float], selections: Sequence[float]) -> None:
        """See the base: the mark is known from the start, so the first selection is due before S is empty."""
        for at in draws:
            self._rate.note(1, 0, at)
        for seconds in selections:
            self._lead.note(seconds)

    # ------------------------------------------------------------------ annotators

    def random_queries(self, asked: int) -> int:
        """Returns how many ids are offered at random: before the first selection, as many as S lacks."""
        if self._has_selected:
            return 0
        lacking = max(asked - self.pools.queries.draws, min(asked, self._blocked))
        return min(math.ceil(lacking / self._answers), self.still_to_offer())

    def note_draw(self, drawn: int, waiting: int, now: float, blocked: int = 0) -> None:
        """Notes a draw: the rate, whether S was found empty, and since when a selection is due."""
        self._blocked = blocked
        waiting = 0 if self.pools.queries.waiting else waiting  # of many who ask, the last ones ask again at once
        self._rate.note(drawn, waiting or blocked, now)
        mark, _ = self._mark(self._rate.per_s(now), now)
        could_be_more = mark < self._highest_mark and len(self._selecting) < self.pools.workers
        if waiting > self._waiting_annotators and could_be_more and self.still_to_offer():
            self._missed = True
        self._waiting_annotators = waiting
        stock = self.pools.queries.draws + self._promised * self._answers
        if not self._has_selected or (stock > mark and not blocked):
            self._due_since = None
        elif self._due_since is None:
            self._due_since = now
