"""Which annotators hold which ids, and until when."""

import collections
import heapq
from collections.abc import Iterable, Sequence

STALE_DEADLINES = 10_000  # of leases that have ended, that may be kept beside those that go on


class Leases:
    """Leases of ids, several annotators may hold one of the same id.

    All of it costs the same however many leases there are.
    """

    def __init__(self) -> None:
        self._of: dict[int, dict[int, float]] = {}  # id -> annotator -> deadline
        self._deadlines: list[tuple[float, Sequence[int], Sequence[int]]] = []  # a heap; ended ones stay for a while
        self._noted = 0  # leases in it
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> list[int]:
        """The ids that somebody holds, in the order in which they were first leased."""
        return list(self._of)

    def holders(self, example: int) -> Iterable[int]:
        """Returns who holds an id."""
        return self._of.get(example, ())

    def count(self, example: int) -> int:
        """Returns how many hold an id."""
        return len(self._of.get(example, ()))

    def hold(self, example: int, annotator: int, deadline: float) -> None:
        """Leases an id to an annotator, or makes the lease end at another time; `watch` has to follow."""
        held = self._of.setdefault(example, {})
        self._count += annotator not in held
        held[annotator] = deadline

    def watch(self, ids: Sequence[int], annotators: Sequence[int], deadline: float) -> None:
        """Notes when leases run out that began together, one of each pair."""
        heapq.heappush(self._deadlines, (deadline, ids, annotators))
        self._noted += len(ids)
        if self._noted > 2 * self._count + STALE_DEADLINES:
            self._drop_stale_deadlines()

    def end(self, example: int, annotator: int) -> float | None:
        """Ends a lease; returns its deadline, None where there was none."""
        held = self._of.get(example)
        deadline = None if held is None else held.pop(annotator, None)
        if deadline is not None:
            self._count -= 1
            if not held:
                del self._of[example]
        return deadline

    def end_all_of(self, example: int) -> None:
        """Ends every lease of an id."""
        self._count -= len(self._of.pop(example, ()))

    def all(self) -> list[tuple[int, int]]:
        """Returns (id, annotator) of every lease."""
        return [(example, annotator) for example, held in self._of.items() for annotator in held]

    def expired(self, now: float) -> list[tuple[int, int]]:
        """Returns (id, annotator) of the leases that have run out; they go on until they are ended."""
        found: dict[tuple[int, int], None] = {}  # one that ended and began again may be noted twice
        while self._deadlines and self._deadlines[0][0] <= now:
            found |= dict.fromkeys(self._going_on(*self._pop()))
        return list(found)

    def first_deadline(self) -> float | None:
        """Returns when the first lease runs out; None while there is none."""
        while self._deadlines and not self._going_on(*self._deadlines[0]):
            self._pop()
        return self._deadlines[0][0] if self._deadlines else None

    def _going_on(self, deadline: float, ids: Sequence[int], annotators: Sequence[int]) -> list[tuple[int, int]]:
        pairs = zip(ids, annotators, strict=True)
        return [(example, person) for example, person in pairs if self._of.get(example, {}).get(person) == deadline]

    def _pop(self) -> tuple[float, Sequence[int], Sequence[int]]:
        deadline, ids, annotators = heapq.heappop(self._deadlines)
        self._noted -= len(ids)
        return deadline, ids, annotators

    def _drop_stale_deadlines(self) -> None:
        ends: dict[float, tuple[list[int], list[int]]] = collections.defaultdict(lambda: ([], []))
        for example, held in self._of.items():
            for annotator, deadline in held.items():
                ends[deadline][0].append(example)
                ends[deadline][1].append(annotator)
        self._deadlines = [(deadline, *columns) for deadline, columns in ends.items()]
        heapq.heapify(self._deadlines)
        self._noted = self._count
