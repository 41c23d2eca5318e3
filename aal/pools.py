"""The two shared pools as plain data: no processes, no waiting, no clock of their own."""

import heapq
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Lease(NamedTuple):
    """An item in an annotator's hands until `deadline`."""

    annotator: int
    deadline: float


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
        self._leases: dict[int, Lease] = {}
        self._deadlines: list[tuple[float, int, int]] = []
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

    def draw(self, annotator: int, deadline: float) -> int:
        """Leases an item drawn uniformly at random; the caller has seen to it that one waits."""
        position = int(self._random.random() * len(self._waiting))
        item = self._take(position)
        self._leases[item] = Lease(annotator, deadline)
        if len(self._deadlines) > 2 * len(self._leases) + 64:  # forget the deadlines of those that were answered
            self._deadlines = [(lease.deadline, item, lease.annotator) for item, lease in self._leases.items()]
            heapq.heapify(self._deadlines)
        else:
            heapq.heappush(self._deadlines, (deadline, item, annotator))
        return item

    def settle(self, item: int, annotator: int) -> bool:
        """Takes an item out of the pool because `annotator` answered it.

        A late answer is as good as another, for it was paid: it counts while nobody else has answered.

        Returns:
            False when the item is not here or this annotator never drew it.
        """
        lease = self._leases.get(item)
        late = annotator in self._former.get(item, ())
        if lease is not None and (lease.annotator == annotator or late):
            del self._leases[item]
        elif lease is None and late:
            self._take(self._waiting.index(item))
        else:
            return False
        self._former.pop(item, None)
        return True

    def expire(self, now: float) -> list[int]:
        """Returns to the pool, and to the caller, the items whose lease has run out."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, item, annotator = heapq.heappop(self._deadlines)
            if self._holds(deadline, item, annotator):
                self._give_back(item)
                expired.append(item)
        return expired

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases runs out; None while there is none."""
        while self._deadlines and not self._holds(*self._deadlines[0]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def release_all(self) -> list[int]:
        """Returns to the pool, and to the caller, all leased items."""
        return self._give_back(*self._leases)

    def _take(self, position: int) -> int:
        item, last = self._waiting[position], self._waiting.pop()
        if position < len(self._waiting):
            self._waiting[position] = last
        return item

    def _holds(self, deadline: float, item: int, annotator: int) -> bool:
        """Whether the lease of this deadline is still out."""
        return self._leases.get(item) == (annotator, deadline)

    def _give_back(self, *items: int) -> list[int]:
        for item in items:
            self._former.setdefault(item, set()).add(self._leases.pop(item).annotator)
        self._waiting.extend(items)
        return list(items)


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
        for item, label in zip(items, labels, strict=True):
            self.add(int(item), int(label))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: int) -> bool:
        return bool(self._known[item])

    def add(self, item: int, label: int) -> None:
        """Appends a label.

        Raises:
            ValueError: the item is labelled already.
        """
        if self._known[item]:
            raise ValueError(f"item {item} is labelled already")
        self._known[item] = True
        self._items[self._count] = item
        self._labels[self._count] = label
        self._count += 1

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns items and labels number `start` to `stop` as int64 arrays."""
        stop = min(stop, self._count)
        return self._items[start:stop].copy(), self._labels[start:stop].copy()
