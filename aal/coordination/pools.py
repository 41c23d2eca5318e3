"""The pools as plain data: no processes, no waiting, no clock of their own.

`Pools` is the one home of an example's state; `QueryPool` and `LabelledPool` keep the order of S and L.
"""

from collections.abc import Sequence

import numpy as np

from aal.coordination.partition import Partition
from aal.coordination.query_pool import NO_MODEL, QueryPool

OUTSIDE, UNLABELLED, QUERIED, LABELLED = range(4)  # the state of an example; outside: for testing or validation


class LabelledPool:
    """L: ids and their labels in order of arrival; it only grows, so a training set is a prefix of it.

    Args:
        size: ids of the whole set. What is not used yet costs no memory.
    """

    def __init__(self, size: int) -> None:
        self._ids = np.empty(size, np.int64)
        self._labels = np.empty(size, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """Appends labels; the caller has checked that the ids may be labelled."""
        end = self._count + len(ids)
        self._ids[self._count : end] = ids
        self._labels[self._count : end] = labels
        self._count = end

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels number `start` to `stop` as int64 arrays."""
        stop = min(stop, self._count)
        return self._ids[start:stop].copy(), self._labels[start:stop].copy()


class Pools:
    """Every example in exactly one place: outside (testing, validation), a shard D_j, S, or L.

    Args:
        partition: where every id begins.
        labels: (n,) true label of every id, -1 where it is unknown; those of the initial ids are used.
        bound: of S.
        seed: of the draws from S, and of ids that no model chooses.
    """

    def __init__(self, partition: Partition, labels: np.ndarray, bound: int, seed: int) -> None:
        self.queries = QueryPool(bound, seed)
        self.labelled = LabelledPool(len(labels))
        self.initial = len(partition.initial)
        self._shards = partition.shards
        self._state = np.full(len(labels), OUTSIDE, np.uint8)
        self._owner = np.full(len(labels), -1, np.int32)
        for worker, shard in enumerate(partition.shards):
            self._owner[shard] = worker
            self._state[shard] = UNLABELLED
        self._left = [len(shard) for shard in partition.shards]
        self._seed = seed
        self._shuffled = np.empty(0, np.int64)  # what is left of the ids of all shards in random order
        self._state[partition.initial] = LABELLED
        self.labelled.add(partition.initial, labels[partition.initial])

    @property
    def workers(self) -> int:
        """Shards that there are."""
        return len(self._shards)

    @property
    def labels(self) -> int:
        """Size of L."""
        return len(self.labelled)

    @property
    def idle(self) -> bool:
        """Whether S is empty and nothing is leased."""
        return not self.queries.waiting and not self.queries.leased

    @property
    def offered(self) -> int:
        """Ids that were offered and not withdrawn: in S, on lease, or answered."""
        return self.labels - self.initial + self.queries.waiting + self.queries.leased

    @property
    def unlabelled(self) -> int:
        """Ids that are in the shards."""
        return sum(self._left)

    def left(self, worker: int) -> int:
        """Returns how many ids are in a shard."""
        return self._left[worker]

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids that are in a shard, int64 (n,)."""
        shard = self._shards[worker]
        return shard[self._state[shard] == UNLABELLED]

    def still_there(self, ids: Sequence[int]) -> list[int]:
        """Returns those of the ids that are in a shard."""
        return [example for example in ids if self._state[example] == UNLABELLED]

    def at_random(self, count: int) -> dict[int, list[int]]:
        """Returns ids drawn uniformly at random from all shards, by worker: `count`, or as many as there are."""
        found: dict[int, list[int]] = {}
        taken: set[int] = set()
        while count > len(taken):
            if not self._shuffled.size:
                there = np.setdiff1d(np.flatnonzero(self._state == UNLABELLED), list(taken))
                if not there.size:
                    break
                self._shuffled = np.random.default_rng((self._seed, there.size)).permutation(there)
            drawn, self._shuffled = np.split(self._shuffled, [count - len(taken)])
            for example in self.still_there(drawn.tolist()):  # workers have chosen some of them meanwhile
                found.setdefault(int(self._owner[example]), []).append(example)
                taken.add(example)
        return found

    def withdraw(self, version: int, count: int) -> list[int]:
        """Moves up to `count` ids, that nobody has drawn and models before a version chose, from S to their shards."""
        ids = self.queries.withdraw(version, count)
        self._state[ids] = UNLABELLED
        for example in ids:
            self._left[self._owner[example]] += 1
        return ids

    def offer(self, worker: int, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Moves ids from a shard to S.

        Args:
            worker: whose shard they are in.
            ids: of the examples.
            version: of the newest model that chose them.

        Raises:
            ValueError: one is not an unlabelled id of this worker's shard, or is given twice.
        """
        offered = np.array(ids, np.int64)
        allowed = (self._owner[offered] == worker) & (self._state[offered] == UNLABELLED)
        if not allowed.all() or len(np.unique(offered)) != len(offered):
            raise ValueError(f"worker {worker}: offers ids that are not unlabelled ones of its shard")
        self._state[offered] = QUERIED
        self._left[worker] -= len(offered)
        self.queries.offer(ids, version)

    def answer(
        self, ids: Sequence[int], annotators: Sequence[int], labels: Sequence[int]
    ) -> tuple[list[bool], list[int]]:
        """Moves answered ids from S to L, once; returns for each whether it was taken, and the ids that were."""
        taken = list(map(self.queries.settle, ids, annotators))
        new = [example for example, was_taken in zip(ids, taken, strict=True) if was_taken]
        if new:
            self.labelled.add(new, [label for label, was_taken in zip(labels, taken, strict=True) if was_taken])
            self._state[new] = LABELLED
        return taken, new

    def owned(self, ids: np.ndarray, owner: int) -> np.ndarray:
        """Returns which of the ids began in the shard of a worker, bool (n,)."""
        return self._owner[ids] == owner

    def restore(self, answers: Sequence[tuple[int, int]], unanswered: Sequence[tuple[int, int, bool]]) -> None:
        """Takes in what a former process left.

        Args:
            answers: (id, label) in order of arrival.
            unanswered: (id, version that chose it, whether it was drawn) of the queries, which all wait again.
        """
        if answers:
            ids, labels = map(list, zip(*answers, strict=True))
            self.labelled.add(ids, labels)
            self._state[ids] = LABELLED
        for example, version, was_drawn in unanswered:
            self._state[example] = QUERIED
            self.queries.offer([example], version)
            if was_drawn:
                self.queries.keep(example)
        for worker, shard in enumerate(self._shards):
            self._left[worker] = int((self._state[shard] == UNLABELLED).sum())
