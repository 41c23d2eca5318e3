"""The asynchronous schedule (paper, section 3): a threshold for trainings, a staleness bound for selections."""

from collections.abc import Iterator

from aal.config.registry import SCHEDULES
from aal.config.settings import Settings
from aal.coordination.messages import Change
from aal.coordination.schedules.base import Schedule


@SCHEDULES.register("async")
class Asynchronous(Schedule):
    """Servers, workers and annotators go on at the same time.

    A training is due when L has grown by `server_train_threshold` since the last one. Batch b of a worker belongs to
    round b * round_size // server_train_threshold and may be selected once version round - max_staleness exists, of
    every target; with `max_staleness: null` there is no bound. Under `auto` the subclass `JustInTime` takes its place.
    """

    changes_for_job = Change.LABELS | Change.MODELS | Change.IDLE
    changes_for_grant = Change.MODELS | Change.IDLE

    @classmethod
    def contradictions(cls, settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields a pool that cannot hold a batch, and what only `max_staleness: auto` can do."""
        yield from super().contradictions(settings)
        if settings.query_pool_size is not None and settings.query_pool_size < settings.query_batch:
            text = f"{settings.query_pool_size} cannot hold one batch of {settings.query_batch}"
            yield ("query_pool_size", "query_batch"), text

    def training_due(self) -> bool:
        """Whether L has grown by the threshold, or no further label can come before a training."""
        growth = self.pools.labels - self.trained_on
        if self.issued < self.lineages.number or ((growth > 0 or self.is_revised) and self.all_answered):
            return True
        if growth == 0 or self._trainings_spent:
            return False
        return growth >= self.settings.server_train_threshold or self._stalled

    def batch_size(self, worker: int) -> int:
        """Returns `query_batch`, or what is left of the shard."""
        s = self.settings
        return min(s.query_batch if self.batches[worker] < s.worker_query_num else 0, self.pools.left(worker))

    def still_to_offer(self) -> int:
        """Returns what the batches that are left hold, as far as the shards go."""
        s = self.settings
        return sum(
            min((s.worker_query_num - batches) * s.query_batch, self.pools.left(worker))
            for worker, batches in enumerate(self.batches)
        )

    @property
    def nothing_to_offer(self) -> bool:
        """Whether every id that is to be labelled has been offered; looks no further than the first that has not."""
        return not self.pools.held_back and not any(map(self.batch_size, range(self.pools.workers)))

    def may_select(self, worker: int) -> bool:
        """Whether a worker is within the bound, or no newer model can come."""
        if self._trainings_spent and not self._held and not self._returned:
            return True
        no_training_due = self._trainings_spent or self.pools.labels == self.trained_on
        return self._within_bound(worker) or (no_training_due and self._stalled)

    @property
    def _trainings_spent(self) -> bool:
        """Whether only the last of `server_train_num` trainings, which uses every label, is left."""
        limit = self.settings.server_train_num
        return limit is not None and self.lineages.rounds >= limit  # the initial training counts among the issued

    def _within_bound(self, worker: int) -> bool:
        s = self.settings
        if not isinstance(s.max_staleness, int):
            return True
        labelling_round = self.batches[worker] * s.round_size // s.server_train_threshold
        return self.lineages.generations - 1 >= labelling_round - s.max_staleness

    @property
    def _stalled(self) -> bool:
        """Whether nothing moves any more unless a worker or server is let through.

        A threshold that is no multiple of a round, or surplus labels that a job absorbed, can leave fewer versions than
        the bound counts on.
        """
        if not self.lineages.generations or not self.nothing_computes:
            return False
        return not any(self._within_bound(worker) for worker in range(self.pools.workers) if self.batch_size(worker))
