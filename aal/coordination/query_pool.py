"""S, the query pool: which ids wait for an annotator and what chose them, and which are on lease to whom."""

import collections
import heapq
import random
from collections.abc import Sequence

NO_MODEL = -1  # in the place of a version: chosen at random
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
        self._versions: dict[int, int] = {}  # id -> model that chose it
        self._untouched: collections.Counter[int] = collections.Counter()  # by version: ids that nobody has drawn yet

    @property
    def waiting(self) -> int:
        """Ids that wait for an annotator."""
        return len(self._waiting)

    @property
    def leased(self) -> int:
        """Ids on lease."""
        return len(self._leases)

    def unanswered(self, version: int = NO_MODEL) -> list[int]:
        """Returns the ids on lease, and those that wait without what `withdraw` may take out for a version."""
        versions, former = self._versions, self._former
        waiting = (example for example in self._waiting if versions[example] >= version or example in former)
        return [*waiting, *self._leases]

    @property
    def room(self) -> int:
        """Ids that may still be offered."""
        return max(0, self.bound - len(self._waiting))

    def older(self, version: int) -> int:
        """Returns how many ids that nobody has drawn yet were chosen by models before a version."""
        return sum(count for other, count in self._untouched.items() if other < version)

    def offer(self, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Puts ids into the pool that a model chose; the caller has checked that they may be."""
        self._waiting.extend(ids)
        self._versions.update(dict.fromkeys(ids, version))
        self._untouched[version] += len(ids)

    def keep(self, example: int) -> None:
        """Notes that an id which waits was drawn before, by annotators of a former hub: it is not withdrawn."""
        if example not in self._former:
            self._former[example] = set()
            self._untouched[self._versions[example]] -= 1

    def withdraw(self, version: int, count: int) -> list[int]:
        """Takes out ids that nobody has drawn yet and that models before a version chose, those of the oldest first.

        Args:
            version: of the model that has chosen others in their place.
            count: ids to take out, at the most.
        """
        if count <= 0 or not self.older(version):
            return []
        versions, former = self._versions, self._former
        older = [example for example in self._waiting if versions[example] < version and example not in former]
        taken = sorted(older, key=versions.__getitem__)[:count]
        gone = set(taken)
        self._waiting = [example for example in self._waiting if example not in gone]
        for example in taken:
            self._untouched[versions.pop(example)] -= 1
        return taken

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases ids drawn uniformly at random, one to each annotator, to the first ones if fewer wait."""
        waiting, uniform = self._waiting, self._random.random
        ids = []
        for _ in range(min(len(annotators), len(waiting))):
            position = int(uniform() * len(waiting))
            waiting[position], waiting[-1] = waiting[-1], waiting[position]
            ids.append(waiting.pop())
        if ids:
            former, untouched, versions = self._former, self._untouched, self._versions
            for example, annotator in zip(ids, annotators, strict=False):
                self._leases[example] = (annotator, deadline)
                if example not in former:
                    untouched[versions[example]] -= 1
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
        del self._versions[example]
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
