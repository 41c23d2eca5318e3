"""What a run needs under a schedule, as its settings say it: how many roles, which pools, which hub."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aal.config.settings import Settings

if TYPE_CHECKING:  # these load NumPy, which a mistake in the settings need not wait for
    import numpy as np

    from aal.coordination.answers import Answers
    from aal.coordination.checks import Checks
    from aal.coordination.hub import Hub
    from aal.coordination.partition import Partition
    from aal.coordination.pools import Pools


class RunNeeds:
    """The class methods of a schedule; what they return fits most schedules."""

    @classmethod
    def server_num(cls, settings: Settings) -> int:
        """Returns how many servers the run has."""
        return settings.server_num

    @classmethod
    def shard_num(cls, settings: Settings) -> int:
        """Returns how many workers, and so shards of the unlabelled pool, the run has."""
        return settings.worker_num

    @classmethod
    def pool_bound(cls, settings: Settings) -> int:
        """Returns how many queries may wait in S."""
        return settings.query_pool_size or 2 * max(settings.round_size, settings.server_train_threshold)

    @classmethod
    def contradictions(cls, settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields keys that are wrong together under this schedule, and what is wrong with them."""
        if settings.federated is not None:
            yield ("federated", "mode"), "is for mode federated"
        if settings.costs.client_factors is not None:
            yield ("costs.client_factors", "costs", "mode"), "are for mode federated"
        if settings.mode == "async" and settings.max_staleness == "auto":
            return
        if settings.initial_size == 0:
            text = "0 is for max_staleness auto in mode async, where annotators begin before there is a model"
            yield ("initial_size", "max_staleness", "mode"), text
        if settings.withdraw_stale:
            yield ("withdraw_stale", "max_staleness", "mode"), "is for max_staleness auto in mode async"

    @classmethod
    def make_pools(
        cls,
        settings: Settings,
        partition: "Partition",
        labels: "np.ndarray",
        seed: int,
        answers: "Answers",
        checks: "Checks | None" = None,
    ) -> "Pools":
        """Returns the pools of a new run.

        Args:
            settings: of the run.
            partition: where every id begins.
            labels: (n,) true labels, -1 where unknown.
            seed: of the draws.
            answers: of all annotators.
            checks: known images to mix in; None for none.
        """
        from aal.coordination.pools import Pools

        bound, cannot_tell = cls.pool_bound(settings), settings.annotators.cannot_tell
        return Pools(partition, labels, bound, seed, answers, cannot_tell, checks)

    @classmethod
    def hub_type(cls) -> "type[Hub]":
        """Returns the class of the hub, which has the calls that the roles of the run need."""
        from aal.coordination.hub import Hub

        return Hub
