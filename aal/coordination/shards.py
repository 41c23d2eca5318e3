"""D_1 ... D_k, the shards of the unlabelled pool, one a worker, and the state of every example."""

from collections.abc import Sequence

import numpy as np

from aal.coordination.partition import Partition

# The state of an example; outside: for testing or validation; retired: it is to have no label.
OUTSIDE, UNLABELLED, QUERIED, LABELLED, RETIRED = range(5)


class Shards:
    """Which ids are in which shard.

    Args:
        partition: where every id begins.
        size: ids of the whole set.
        seed: of ids that no model chooses.
    """

    def __init__(self, partition: Partition, size: int, seed: int) -> None:
        self._shards = partition.shards
        self._state = np.full(size, OUTSIDE, np.uint8)
        self._owner = np.full(size, -1, np.int32)
        for worker, shard in enumerate(partition.shards):
            self._owner[shard] = worker
            self._state[shard] = UNLABELLED
        self._left = [len(shard) for shard in partition.shards]
        self._seed = seed
        self._shuffled = np.empty(0, np.int64)  # what is left of the ids of all shards in random order

    @property
    def workers(self) -> int:
        """Shards that there are."""
        return len(self._shards)

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

    def owned(self, ids: np.ndarray, owner: int) -> np.ndarray:
        """Returns which of the ids began in the shard of a worker, bool (n,)."""
        return self._owner[ids] == owner

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

    def _take(self, worker: int, ids: Sequence[int]) -> None:
        """Takes ids out of a shard.

        Raises:
            ValueError: one is not an unlabelled id of this worker's shard, or is given twice.
        """
        offered = np.array(ids, np.int64)
        allowed = (self._owner[offered] == worker) & (self._state[offered] == UNLABELLED)
        if not allowed.all() or len(np.unique(offered)) != len(offered):
            raise ValueError(f"worker {worker}: offers ids that are not unlabelled ones of its shard")
        self._state[offered] = QUERIED
        self._left[worker] -= len(offered)

    def _put_back(self, ids: Sequence[int]) -> None:
        """Puts ids back into their shards."""
        self._state[list(ids)] = UNLABELLED
        for example in ids:
            self._left[self._owner[example]] += 1

    def _count_left(self) -> None:
        """Counts anew what is left of each shard."""
        self._left = [int((self._state[shard] == UNLABELLED).sum()) for shard in self._shards]
