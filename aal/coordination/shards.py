"""D_1 ... D_k, the shards of the unlabelled pool, one a worker, and the state of every example."""

from collections.abc import Sequence

import numpy as np

from aal.coordination.partition import Partition

# The state of an example; outside: for testing or validation; retired: it is to have no label.
OUTSIDE, UNLABELLED, QUERIED, LABELLED, RETIRED = range(5)


OTHERS = 3  # ids that are offered for each one that is held out, until all of those are


class Shards:
    """Which ids are in which shard.

    Those that are held out for testing and validation are offered at random, among the first; workers never see them.

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
        self._held_out = partition.held_out
        self._is_held_out = np.zeros(size, bool)
        self._is_held_out[partition.held_out.ids] = True
        self._choosable = sum(map(len, partition.shards)) - len(partition.held_out.ids)  # at the start
        self._count_left()
        self._seed = seed
        self._shuffled = np.empty(0, np.int64)  # what is left of the ids of all shards in random order

    @property
    def workers(self) -> int:
        """Shards that there are."""
        return len(self._shards)

    @property
    def unlabelled(self) -> int:
        """Ids in the shards that may be chosen."""
        return self._unlabelled

    @property
    def held_back(self) -> int:
        """Ids in the shards that are held out."""
        return self._held_back

    @property
    def held_out_due(self) -> int:
        """How many of these are to be offered, so that annotators get one after every `OTHERS` others."""
        offered = len(self._held_out.ids) - self._held_back
        return min(self._held_back, max(0, -(-(self._choosable - self.unlabelled) // OTHERS) - offered))

    def left(self, worker: int) -> int:
        """Returns how many ids of a shard may be chosen."""
        return self._left[worker]

    def remaining(self, worker: int) -> np.ndarray:
        """Returns the ids of a shard that may be chosen, int64 (n,)."""
        shard = self._shards[worker]
        return shard[(self._state[shard] == UNLABELLED) & ~self._is_held_out[shard]]

    def still_there(self, ids: Sequence[int]) -> list[int]:
        """Returns those of the ids that are in a shard."""
        return [example for example in ids if self._state[example] == UNLABELLED]

    def owned(self, ids: np.ndarray, owner: int) -> np.ndarray:
        """Returns which of the ids began in the shard of a worker, bool (n,)."""
        return self._owner[ids] == owner

    def at_random(self, count: int) -> dict[int, list[int]]:
        """Returns ids that may be chosen, drawn uniformly from all shards, by worker: `count`, or all there are."""
        found: dict[int, list[int]] = {}
        taken: set[int] = set()
        while count > len(taken):
            if not self._shuffled.size:
                may = (self._state == UNLABELLED) & ~self._is_held_out
                there = np.setdiff1d(np.flatnonzero(may), list(taken))
                if not there.size:
                    break
                self._shuffled = np.random.default_rng((self._seed, there.size)).permutation(there)
            drawn, self._shuffled = np.split(self._shuffled, [count - len(taken)])
            for example in self.still_there(drawn.tolist()):  # workers have chosen some of them meanwhile
                found.setdefault(int(self._owner[example]), []).append(example)
                taken.add(example)
        return found

    def held_out_at_random(self, count: int) -> dict[int, list[int]]:
        """Returns ids that are held out, drawn uniformly from all shards, by worker: `count`, or all that there are."""
        if not count:
            return {}
        ids = self._held_out.ids
        there = ids[self._state[ids] == UNLABELLED]
        drawn = np.random.default_rng((self._seed, 1, there.size)).permutation(there)[:count]
        return {int(worker): drawn[self._owner[drawn] == worker].tolist() for worker in np.unique(self._owner[drawn])}

    def _take(self, worker: int, ids: Sequence[int], is_chosen: bool) -> list[int]:
        """Takes ids out of a shard; returns those of them that are held out.

        Args:
            worker: whose shard they are in.
            ids: of the examples.
            is_chosen: whether a model chose them, which may not be those that are held out.

        Raises:
            ValueError: one is not an unlabelled id of this worker's shard, is given twice, or may not be chosen.
        """
        offered = np.array(ids, np.int64)
        held_out = self._is_held_out[offered]
        allowed = (self._owner[offered] == worker) & (self._state[offered] == UNLABELLED) & ~(is_chosen & held_out)
        if not allowed.all() or len(np.unique(offered)) != len(offered):
            raise ValueError(f"worker {worker}: offers ids that are not unlabelled ones of its shard")
        self._state[offered] = QUERIED
        aside: list[int] = offered[held_out].tolist()
        self._held_back -= len(aside)
        self._left[worker] -= len(offered) - len(aside)
        self._unlabelled -= len(offered) - len(aside)
        return aside

    def _put_back(self, ids: Sequence[int]) -> None:
        """Puts ids back into their shards, none of which is held out."""
        self._state[list(ids)] = UNLABELLED
        self._unlabelled += len(ids)
        for example in ids:
            self._left[self._owner[example]] += 1

    def _count_left(self) -> None:
        """Counts anew what is left of each shard."""
        self._left = [len(self.remaining(worker)) for worker in range(self.workers)]
        self._unlabelled = sum(self._left)
        self._held_back = int((self._state[self._held_out.ids] == UNLABELLED).sum())
