"""The classic loop of active learning, for comparison: train, select over the whole pool, label, in turn."""

from collections.abc import Iterator

from aal.config.registry import SCHEDULES
from aal.config.settings import Settings
from aal.coordination.messages import Change
from aal.coordination.schedules.base import Schedule


@SCHEDULES.register("sync")
class Synchronous(Schedule):
    """One server and one worker that owns the whole pool; each round waits for the one before."""

    takes_turns = True
    changes_for_job = Change.LABELS | Change.MODELS | Change.IDLE
    changes_for_grant = Change.MODELS | Change.IDLE

    @classmethod
    def server_num(cls, settings: Settings) -> int:
        """Returns 1: one model is trained at a time."""
        return 1

    @classmethod
    def shard_num(cls, settings: Settings) -> int:
        """Returns 1: one worker selects over the whole pool."""
        return 1

    @classmethod
    def pool_bound(cls, settings: Settings) -> int:
        """Returns the budget, unless `query_pool_size` is given."""
        return settings.query_pool_size or settings.budget

    @classmethod
    def contradictions(cls, settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields a pool that cannot hold a round, and what only `max_staleness: auto` can do."""
        yield from super().contradictions(settings)
        if settings.query_pool_size is not None and settings.query_pool_size < settings.server_train_threshold:
            text = f"{settings.query_pool_size} cannot hold a round of mode sync, {settings.server_train_threshold}"
            yield ("query_pool_size", "mode", "server_train_threshold"), text

    def training_due(self) -> bool:
        """Whether a round is answered and has not been trained on."""
        growth = self.pools.labels - self.trained_on
        if self.issued < self.lineages.number or ((growth > 0 or self.is_revised) and self.all_answered):
            return True
        return growth > 0 and not self._trainings_spent and self._round_is_over

    def batch_size(self, worker: int) -> int:
        """Returns a whole round: `server_train_threshold`, or what is left of the budget or the pool."""
        return min(self.settings.server_train_threshold, self.still_to_offer())

    def still_to_offer(self) -> int:
        """Returns what is left of the budget, as far as the pool goes."""
        left = self.settings.budget - self.pools.offered - self.pools.held_back
        return max(0, min(left, self.pools.left(0)))  # a corrected image that nobody could tell may exceed the budget

    def may_select(self, worker: int) -> bool:
        """Whether all that was selected is answered and trained on."""
        return self._round_is_over and (self._trainings_spent or self.pools.labels == self.trained_on)

    @property
    def _trainings_spent(self) -> bool:
        limit = self.settings.server_train_num
        return limit is not None and self.lineages.rounds >= limit

    @property
    def _round_is_over(self) -> bool:
        return bool(self.lineages.generations) and self.nothing_computes
