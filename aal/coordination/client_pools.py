"""The pools of a federation: every client has queries and annotators of its own."""

from collections.abc import Collection, Sequence

import numpy as np

from aal.coordination.answers import Answers
from aal.coordination.partition import Partition
from aal.coordination.pools import Pools
from aal.coordination.query_pool import NO_MODEL, QueryPool


class ClientQueues(QueryPool):
    """S as one pool of queries for each client; annotator a draws from that of client a % clients.

    Args:
        bounds: of each client's queries.
        seed: of the draws.
        answers: that each id is to get.
        owner: (n,) client of every id.
    """

    def __init__(self, bounds: Sequence[int], seed: int, answers: int, owner: np.ndarray) -> None:
        super().__init__(sum(bounds), seed, answers)
        self._queues = [QueryPool(bound, seed + client, answers) for client, bound in enumerate(bounds)]
        self._owner = owner

    def of(self, client: int) -> QueryPool:
        """Returns the queries of a client."""
        return self._queues[client]

    def _of_example(self, example: int) -> QueryPool:
        return self._queues[self._owner[example]]

    # ------------------------------------------------------------------ of all clients

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    @property
    def waiting(self) -> int:
        """Ids that wait for an annotator."""
        return sum(queue.waiting for queue in self._queues)

    @property
    def draws(self) -> int:
        """How often annotators may draw from what waits."""
        return sum(queue.draws for queue in self._queues)

    @property
    def leased(self) -> int:
        """Leases that go on."""
        return sum(queue.leased for queue in self._queues)

    @property
    def room(self) -> int:
        """Ids that may still be offered, by all clients together."""
        return sum(queue.room for queue in self._queues)

    def unanswered(self, version: int = NO_MODEL) -> list[int]:
        """See `QueryPool`."""
        return [example for queue in self._queues for example in queue.unanswered(version)]

    def older(self, version: int) -> int:
        """See `QueryPool`."""
        return sum(queue.older(version) for queue in self._queues)

    def withdraw(self, version: int, count: int) -> list[int]:
        """Withdraws nothing: what a client has offered stays in its queries."""
        return []

    def expire(self, now: float) -> list[int]:
        """See `QueryPool`."""
        return [example for queue in self._queues for example in queue.expire(now)]

    def first_deadline(self) -> float | None:
        """See `QueryPool`."""
        return min((at for queue in self._queues if (at := queue.first_deadline()) is not None), default=None)

    def release_all(self, below: int | None = None) -> list[int]:
        """See `QueryPool`."""
        return [example for queue in self._queues for example in queue.release_all(below)]

    # ------------------------------------------------------------------ of one client

    def offer(self, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Puts ids of one client into its pool."""
        if ids:
            self._of_example(ids[0]).offer(ids, version)

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases ids to annotators of one client.

        Raises:
            ValueError: they are of several clients.
        """
        clients = {annotator % len(self._queues) for annotator in annotators}
        if len(clients) > 1:
            raise ValueError("annotators of several clients draw together")
        if not clients:
            return []
        queue = self._queues[clients.pop()]
        queue.is_last = self.is_last
        return queue.draw(annotators, deadline)

    # ------------------------------------------------------------------ of one id: an answer of another client's
    # annotator does not count, for nobody of that client has drawn it

    def missing(self, example: int) -> int:
        """See `QueryPool`."""
        return self._of_example(example).missing(example)

    def keep(self, example: int, former: Collection[int] = (), had: Collection[int] = (), missing: int = 1) -> None:
        """See `QueryPool`."""
        self._of_example(example).keep(example, former, had, missing)

    def finish(self, example: int) -> None:
        """See `QueryPool`."""
        self._of_example(example).finish(example)

    def extend(self, example: int) -> None:
        """See `QueryPool`."""
        self._of_example(example).extend(example)

    def wait_for_holders(self, example: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).wait_for_holders(example)

    def settle(self, example: int, annotator: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).settle(example, annotator)

    def decline(self, example: int, annotator: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).decline(example, annotator)

    def take_back(self, example: int, annotator: int, deadline: float, answered: bool) -> None:
        """See `QueryPool`."""
        self._of_example(example).take_back(example, annotator, deadline, answered)

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """See `QueryPool`; an annotator of another client never gets it."""
        is_own = other % len(self._queues) == self._owner[example]
        return is_own and self._of_example(example).pass_on(example, annotator, other)

    def renew(self, example: int, annotator: int, deadline: float) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).renew(example, annotator, deadline)

    def give_back(self, example: int, annotator: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).give_back(example, annotator)

    def put_off(self, example: int, annotator: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).put_off(example, annotator)


class ClientPools(Pools):
    """Every example in exactly one place, and in the hands of one client.

    Args:
        partition: where every id begins, with an owner of each initial id.
        labels: (n,) true label of every id, -1 where it is unknown; those of the initial ids are used.
        a_cycle: labels that all clients together buy in a cycle; each its share by size, rounded up.
        seed: of the draws.
        answers: of all annotators.
        cannot_tell: annotators of a client who cannot tell what an image is, before it is shown to nobody else.

    Attributes:
        batches: what each client buys in a cycle.
    """

    def __init__(
        self,
        partition: Partition,
        labels: np.ndarray,
        a_cycle: int,
        seed: int,
        answers: Answers,
        cannot_tell: int = 1,
    ) -> None:
        super().__init__(partition, labels, 1, seed, answers, cannot_tell)
        clients, owner = len(partition.shards), partition.initial_owner
        assert owner is not None
        self._owner[partition.initial] = owner
        sizes = np.bincount(self._owner[self._owner >= 0], minlength=clients)
        self.batches = [-(-int(size) * a_cycle // int(sizes.sum())) for size in sizes]
        bounds = [2 * size for size in self.batches]
        self.queries: ClientQueues = ClientQueues(bounds, seed, answers.wanted, self._owner)
