"""The two shared pools as plain data: no processes, no waiting, no clock of their own."""

import collections
import heapq
import random
from collections.abc import Iterable, Sequence

import numpy as np

FORGET = 10_000  # deadlines of answered items that may be kept beside those of leased ones


class QueryPool:
    """S: the items that wait for an annotator, and those out on lease.

    Offers, draws and answers cost the same whatever the size of the pool; only a late answer looks through it.

    Args:
        bound: items that may wait at once; returned leases may exceed it, since nothing is dropped.
        seed: of the uniform draws (paper, section 3.1: annotators pick at random from S).
    """

    def __init__(self, bound: int, seed: int) -> None:
        self.bound = bound
        self._random = random.Random(seed)
        self._waiting: list[int] = []
        self._leases: dict[int, tuple[int, float]] = {}  # item -> (annotator, deadline)
        self._deadlines: list[tuple[float, list[int]]] = []  # a heap; answered items stay in it for a while
        self._noted = 0  # items in it
        self._former: dict[int, set[int]] = {}

    @property
    def waiting(self) -> int:
        """Items that wait for an annotator."""
        return len(self._waiting)

    @property
    def leased(self) -> int:
        """Items in annotators' hands."""
        return len(self._leases)

    @property
    def room(self) -> int:
        """Items that may still be offered."""
        return max(0, self.bound - len(self._waiting))

    def waiting_items(self) -> list[int]:
        """The items that wait, in no particular order."""
        return list(self._waiting)

    def leased_items(self) -> list[int]:
        """The items on lease, in no particular order."""
        return list(self._leases)

    def offer(self, items: Iterable[int]) -> None:
        """Puts items into the pool; the caller has seen to it that they are new and fit."""
        self._waiting.extend(items)

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases items drawn uniformly at random, one to each annotator, to the first ones if fewer wait."""
        waiting, chance = self._waiting, self._random.random
        items = []
        for _ in range(min(len(annotators), len(waiting))):
            position = int(chance() * len(waiting))
            waiting[position], waiting[-1] = waiting[-1], waiting[position]
            items.append(waiting.pop())
        if items:
            for item, annotator in zip(items, annotators, strict=False):
                self._leases[item] = (annotator, deadline)
            heapq.heappush(self._deadlines, (deadline, items))
            self._noted += len(items)
            if self._noted > 2 * len(self._leases) + FORGET:
                self._forget()
        return items

    def settle(self, item: int, annotator: int) -> bool:
        """Takes an item out of the pool because `annotator` answered it.

        A late answer is as good as another, for it was paid: it counts while nobody else has answered.

        Returns:
            False when the item is not here or this annotator never drew it.
        """
        lease = self._leases.get(item)
        if lease is None or lease[0] != annotator:
            if annotator not in self._former.get(item, ()):
                return False
            if lease is None:
                self._waiting.remove(item)
        self._leases.pop(item, None)
        self._former.pop(item, None)
        return True

    def expire(self, now: float) -> list[int]:
        """Returns to the pool, and to the caller, the items whose lease has run out."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expired.extend(self._give_back(self._held(*self._pop())))
        return expired

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases runs out; None while there is none."""
        while self._deadlines and not self._held(*self._deadlines[0]):
            self._pop()
        return self._deadlines[0][0] if self._deadlines else None

    def release_all(self) -> list[int]:
        """Returns to the pool, and to the caller, all leased items."""
        return self._give_back(list(self._leases))

    def _held(self, deadline: float, items: list[int]) -> list[int]:
        """Which of the items are still out on the lease that ends then."""
        return [item for item in items if self._leases.get(item, (0, None))[1] == deadline]

    def _pop(self) -> tuple[float, list[int]]:
        deadline, items = heapq.heappop(self._deadlines)
        self._noted -= len(items)
        return deadline, items

    def _forget(self) -> None:
        """Drops the deadlines of items that were answered."""
        ends = collections.defaultdict(list)
        for item, (_, deadline) in self._leases.items():
            ends[deadline].append(item)
        self._deadlines = list(ends.items())
        heapq.heapify(self._deadlines)
        self._noted = len(self._leases)

    def _give_back(self, items: list[int]) -> list[int]:
        for item in items:
            self._former.setdefault(item, set()).add(self._leases.pop(item)[0])
        self._waiting.extend(items)
        return items


class LabeledPool:
    """L: items and their labels in order of arrival; it only grows, so a training set is a prefix of it.

    Args:
        size: items of the whole set; none has a larger number. What is not used yet costs no memory.
        items: labelled from the start.
        labels: of these.
    """

    def __init__(
        self, size: int, items: Sequence[int] | np.ndarray = (), labels: Sequence[int] | np.ndarray = ()
    ) -> None:
        self._items = np.empty(size, np.int64)
        self._labels = np.empty(size, np.int64)
        self._known = np.zeros(size, bool)
        self._count = 0
        self.add(items, labels)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: int) -> bool:
        return bool(self._known[item])

    def add(self, items: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """Appends labels.

        Raises:
            ValueError: an item is labelled already, or twice among these, or there are not as many labels as items.
        """
        new = np.asarray(items, np.int64)
        if len(labels) != len(new):
            raise ValueError(f"{len(labels)} labels for {len(new)} items")
        if self._known[new].any() or len(np.unique(new)) != len(new):
            raise ValueError(f"labelled already: one of the items {new[:10].tolist()}")
        end = self._count + len(new)
        self._known[new] = True
        self._items[self._count : end] = new
        self._labels[self._count : end] = labels
        self._count = end

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns items and labels number `start` to `stop` as int64 arrays."""
        stop = min(stop, self._count)
        return self._items[start:stop].copy(), self._labels[start:stop].copy()
