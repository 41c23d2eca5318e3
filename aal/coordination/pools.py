"""The pools as plain data: no processes, no waiting, no clock of their own.

`Pools` is the one home of an example's state; `QueryPool` and `LabelledPool` keep the order of S and L.
"""

import collections
import heapq
import random
from collections.abc import Iterable, Sequence

import numpy as np

from aal.coordination.partition import Partition

OUTSIDE, UNLABELLED, QUERIED, LABELLED = range(4)  # the state of an example; outside: for testing or validation
STALE_DEADLINES = 10_000  # of answered queries, that may be kept beside those of leased ones


class QueryPool:
    """S: the ids that wait for an annotator, and those on lease.

    Offers, draws and answers cost the same whatever the size of the pool; only a late answer searches it.

    Args:
        bound: ids that may wait at once; returned leases may exceed it, since nothing is dropped.
        seed: of the uniform draws (paper, section 3.1: annotators pick at random from S).
    """

    def __init__(self, bound: int, seed: int) -> None:
        self.bound = bound
        self._random = random.Random(seed)
        self._waiting: list[int] = []
        self._leases: dict[int, tuple[int, float]] = {}  # id -> (annotator, deadline)
        self._deadlines: list[tuple[float, list[int]]] = []  # a heap; answered ids stay in it for a while
        self._noted = 0  # ids in it
        self._former: dict[int, set[int]] = {}  # id -> annotators whose lease ran out

    @property
    def waiting(self) -> int:
        """Ids that wait for an annotator."""
        return len(self._waiting)

    @property
    def leased(self) -> int:
        """Ids on lease."""
        return len(self._leases)

    @property
    def room(self) -> int:
        """Ids that may still be offered."""
        return max(0, self.bound - len(self._waiting))

    def offer(self, ids: Iterable[int]) -> None:
        """Puts ids into the pool; the caller has checked that they may be."""
        self._waiting.extend(ids)

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases ids drawn uniformly at random, one to each annotator, to the first ones if fewer wait."""
        waiting, uniform = self._waiting, self._random.random
        ids = []
        for _ in range(min(len(annotators), len(waiting))):
            position = int(uniform() * len(waiting))
            waiting[position], waiting[-1] = waiting[-1], waiting[position]
            ids.append(waiting.pop())
        if ids:
            for example, annotator in zip(ids, annotators, strict=False):
                self._leases[example] = (annotator, deadline)
            heapq.heappush(self._deadlines, (deadline, ids))
            self._noted += len(ids)
            if self._noted > 2 * len(self._leases) + STALE_DEADLINES:
                self._drop_stale_deadlines()
        return ids

    def settle(self, example: int, annotator: int) -> bool:
        """Takes an id out of the pool because `annotator` answered it.

        A late answer is as good as another, for it was paid: it counts while there is no other answer.

        Returns:
            False when the id is not here or this annotator never drew it.
        """
        lease = self._leases.get(example)
        if lease is None or lease[0] != annotator:
            if annotator not in self._former.get(example, ()):
                return False
            if lease is None:
                self._waiting.remove(example)
        self._leases.pop(example, None)
        self._former.pop(example, None)
        return True

    def expire(self, now: float) -> list[int]:
        """Returns to the pool, and to the caller, the ids whose lease has run out."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expired.extend(self._return(self._held(*self._pop())))
        return expired

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases runs out; None while there is none."""
        while self._deadlines and not self._held(*self._deadlines[0]):
            self._pop()
        return self._deadlines[0][0] if self._deadlines else None

    def release_all(self) -> list[int]:
        """Returns to the pool, and to the caller, all leased ids."""
        return self._return(list(self._leases))

    def _held(self, deadline: float, ids: list[int]) -> list[int]:
        """Which of the ids are still on the lease that ends then."""
        return [example for example in ids if self._leases.get(example, (0, None))[1] == deadline]

    def _pop(self) -> tuple[float, list[int]]:
        deadline, ids = heapq.heappop(self._deadlines)
        self._noted -= len(ids)
        return deadline, ids

    def _drop_stale_deadlines(self) -> None:
        ends = collections.defaultdict(list)
        for example, (_, deadline) in self._leases.items():
            ends[deadline].append(example)
        self._deadlines = list(ends.items())
        heapq.heapify(self._deadlines)
        self._noted = len(self._leases)

    def _return(self, ids: list[int]) -> list[int]:
        for example in ids:
            self._former.setdefault(example, set()).add(self._leases.pop(example)[0])
        self._waiting.extend(ids)
        return ids


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
        seed: of the draws from S.
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

    def left(self, worker: int) -> int:
        """Returns how many ids of a shard were not offered yet."""
        return self._left[worker]

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids of a shard that were not offered yet, int64 (n,)."""
        shard = self._shards[worker]
        return shard[self._state[shard] == UNLABELLED]

    def offer(self, worker: int, ids: Sequence[int]) -> None:
        """Moves ids from a shard to S.

        Raises:
            ValueError: one is not an unlabelled id of this worker's shard, or is given twice.
        """
        offered = np.array(ids, np.int64)
        allowed = (self._owner[offered] == worker) & (self._state[offered] == UNLABELLED)
        if not allowed.all() or len(np.unique(offered)) != len(offered):
            raise ValueError(f"worker {worker}: offers ids that are not unlabelled ones of its shard")
        self._state[offered] = QUERIED
        self._left[worker] -= len(offered)
        self.queries.offer(ids)

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

    def restore(self, answers: Sequence[tuple[int, int]], unanswered: Sequence[int]) -> None:
        """Takes in what a former process left: labels in order of arrival, and queries, which all wait again."""
        if answers:
            ids, labels = map(list, zip(*answers, strict=True))
            self.labelled.add(ids, labels)
            self._state[ids] = LABELLED
        self._state[unanswered] = QUERIED
        self.queries.offer(unanswered)
        for worker, shard in enumerate(self._shards):
            self._left[worker] = int((self._state[shard] == UNLABELLED).sum())
