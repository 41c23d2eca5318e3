"""The pools of a federation: every client has queries, annotators and labels of its own."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from aal.coordination.answers import Answers, Said
from aal.coordination.partition import Partition
from aal.coordination.pools import Outcome, Pools
from aal.coordination.query_pool import NO_MODEL, QueryPool


class ClientQueues(QueryPool):
    """S as one pool of queries for each client; annotator a draws from that of client a % clients.

    Args:
        bounds: of each client's queries.
        seed: of the draws.
        owner: (n,) client of every id.
        answers: that each id is to get.
    """

    def __init__(self, bounds: Sequence[int], seed: int, owner: np.ndarray, answers: int = 1) -> None:
        super().__init__(sum(bounds), seed, answers)
        self._queues = [QueryPool(bound, seed + client, answers) for client, bound in enumerate(bounds)]
        self._owner = owner

    def of(self, client: int) -> QueryPool:
        """Returns the queries of a client."""
        return self._queues[client]

    @property
    def waiting(self) -> int:
        """Ids that wait for an annotator."""
        return sum(queue.waiting for queue in self._queues)

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    @property
    def draws(self) -> int:
        """How often an annotator may draw from what waits."""
        return sum(queue.draws for queue in self._queues)

    @property
    def leased(self) -> int:
        """Leases that go on."""
        return sum(queue.leased for queue in self._queues)

    def offer(self, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Puts ids of one client into its pool."""
        if ids:
            self._of_example(ids[0]).offer(ids, version)

    def keep(self, example: int, former: Collection[int] = (), had: Collection[int] = (), missing: int = 1) -> None:
        """See `QueryPool`."""
        self._of_example(example).keep(example, former, had, missing)

    def missing(self, example: int) -> int:
        """See `QueryPool`."""
        return self._of_example(example).missing(example)

    def extend(self, example: int) -> None:
        """See `QueryPool`."""
        self._of_example(example).extend(example)

    def finish(self, example: int) -> None:
        """See `QueryPool`."""
        self._of_example(example).finish(example)

    def decline(self, example: int, annotator: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).decline(example, annotator)

    def take_back(self, example: int, annotator: int, deadline: float, answered: bool) -> None:
        """See `QueryPool`."""
        self._of_example(example).take_back(example, annotator, deadline, answered)

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """See `QueryPool`."""
        return self._of_example(example).pass_on(example, annotator, other)

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases ids to annotators of one client.

        Raises:
            ValueError: they are of several clients.
        """
        clients = {annotator % len(self._queues) for annotator in annotators}
        if len(clients) > 1:
            raise ValueError("annotators of several clients draw together")
        return self._queues[clients.pop()].draw(annotators, deadline) if clients else []

    def settle(self, example: int, annotator: int) -> bool:
        """See `QueryPool`; an answer of another client's annotator does not count."""
        return self._of_example(example).settle(example, annotator)

    def expire(self, now: float) -> list[int]:
        """See `QueryPool`."""
        return [example for queue in self._queues for example in queue.expire(now)]

    def first_deadline(self) -> float | None:
        """See `QueryPool`."""
        return min((at for queue in self._queues if (at := queue.first_deadline()) is not None), default=None)

    def release_all(self, below: int | None = None) -> list[int]:
        """See `QueryPool`."""
        return [example for queue in self._queues for example in queue.release_all(below)]

    def _of_example(self, example: int) -> QueryPool:
        return self._queues[self._owner[example]]


class ClientPools(Pools):
    """Every example in exactly one place, and in the hands of one client.

    Args:
        partition: where every id begins, with an owner of each initial id.
        labels: (n,) true label of every id, -1 where it is unknown; those of the initial ids are used.
        a_cycle: labels that all clients together buy in a cycle; each its share by size, rounded up.
        seed: of the draws.
        answers: of all annotators.
        cannot_tell: as for `Pools`.

    Attributes:
        batches: what each client buys in a cycle.
        own_labels: labels that each client has.
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
        self.own_labels = np.bincount(owner, minlength=clients).tolist()
        self.queries: ClientQueues = ClientQueues(
            [2 * size for size in self.batches], seed, self._owner, answers.wanted
        )

    def restore(
        self,
        labels: Sequence[tuple[int, int | None]],
        unanswered: Sequence[tuple[int, int, Collection[int]]],
        said: Iterable[Said] = (),
        retired: Collection[int] = (),
    ) -> None:
        """See `Pools`."""
        super().restore(labels, unanswered, said, retired)
        for example, _ in labels:
            self.own_labels[self._owner[example]] += 1

    def _label(self, example: int, label: int, confidence: float, annotator: int, outcome: Outcome) -> None:
        super()._label(example, label, confidence, annotator, outcome)
        self.own_labels[self._owner[example]] += outcome.labels[-1].is_new
