"""S, the query pool: which ids wait for an annotator and what chose them, and which are on lease to whom."""

import collections
import random
from collections.abc import Collection, Sequence

from aal.coordination.leases import Leases

NO_MODEL = -1  # in the place of a version: chosen at random
NO_QUERY = -1  # in the place of an id: this annotator has had all that waits


class QueryPool:
    """S: the ids that wait for an annotator, and those on lease.

    An id leaves S when its last wanted answer is in. Until then it waits as long as fewer annotators hold it than
    answers are missing. Nobody is given an id that he or she has answered, declined, or holds.

    Offers, draws and answers cost the same whatever the size of the pool; only a late answer, or an annotator who has
    had what waits, searches it.

    Args:
        bound: ids that may wait at once; returned leases may exceed it, since nothing is dropped.
        seed: of the uniform draws (paper, section 3.1: annotators pick at random from S).
        answers: that each id is to get.
    """

    def __init__(self, bound: int, seed: int, answers: int = 1) -> None:
        self.bound = bound
        self.leases = Leases()
        self._random = random.Random(seed)
        self._answers = answers
        self._waiting: list[int] = []
        self._draws = 0  # answers that are missing of these and that nobody holds
        self._missing: dict[int, int] = {}  # id -> answers still to come, where that is not `answers`
        self._had: dict[int, set[int]] = {}  # id -> annotators who answered or declined it
        self._former: dict[int, set[int]] = {}  # id -> annotators whose lease ran out
        self._put_off: dict[int, set[int]] = {}  # id -> annotators who would rather have others first
        self.is_last = False  # whether no other ids will come: then who put one off has it again
        self._versions: dict[int, int] = {}  # id -> model that chose it
        self._touched: set[int] = set()  # ids that somebody has drawn
        self._untouched: collections.Counter[int] = collections.Counter()  # the others, by version

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def waiting(self) -> int:
        """Ids that wait for an annotator."""
        return len(self._waiting)

    @property
    def draws(self) -> int:
        """How often an annotator may draw from what waits: of an id, as often as answers of it are missing."""
        return self._draws

    @property
    def leased(self) -> int:
        """Leases that go on."""
        return len(self.leases)

    @property
    def room(self) -> int:
        """Ids that may still be offered."""
        return max(0, self.bound - len(self._waiting))

    def missing(self, example: int) -> int:
        """Returns how many answers of an id are still to come."""
        return self._missing.get(example, self._answers)

    def unanswered(self, version: int = NO_MODEL) -> list[int]:
        """Returns the ids on lease, and those that wait without what `withdraw` may take out for a version."""
        versions, touched = self._versions, self._touched
        waiting = [example for example in self._waiting if versions[example] >= version or example in touched]
        return [*dict.fromkeys([*waiting, *self.leases.ids])]

    def older(self, version: int) -> int:
        """Returns how many ids that nobody has drawn yet were chosen by models before a version."""
        return sum(count for other, count in self._untouched.items() if other < version)

    # ------------------------------------------------------------------ ids come and go

    def offer(self, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Puts ids into the pool that a model chose; the caller has checked that they may be."""
        self._waiting.extend(ids)
        self._versions.update(dict.fromkeys(ids, version))
        self._untouched[version] += len(ids)
        self._draws += len(ids) * self._answers

    def keep(self, example: int, former: Collection[int] = (), had: Collection[int] = (), missing: int = 1) -> None:
        """Takes in what happened to an id that waits, before it was offered here: it is not withdrawn any more.

        Args:
            example: the id.
            former: who drew it and may still answer it.
            had: who answered or declined it.
            missing: answers that are still to come.
        """
        free = self._free(example)
        self._touch(example)
        self._missing[example] = missing
        self._former.setdefault(example, set()).update(set(former) - set(had))
        self._had.setdefault(example, set()).update(had)
        self._moved(example, free)

    def withdraw(self, version: int, count: int) -> list[int]:
        """Takes out ids that nobody has drawn yet and that models before a version chose, those of the oldest first.

        Args:
            version: of the model that has chosen others in their place.
            count: ids to take out, at the most.
        """
        if count <= 0 or not self.older(version):
            return []
        versions, touched = self._versions, self._touched
        older = [example for example in self._waiting if versions[example] < version and example not in touched]
        taken = sorted(older, key=versions.__getitem__)[:count]
        gone = set(taken)
        self._waiting = [example for example in self._waiting if example not in gone]
        for example in taken:
            self._untouched[versions.pop(example)] -= 1
        self._draws -= len(taken) * self._answers
        return taken

    def finish(self, example: int) -> None:
        """Takes out an id that is to get no more answers."""
        free = self._free(example)
        if free > 0:
            self._waiting.remove(example)
            self._draws -= free
        self.leases.end_all_of(example)
        self._touch(example)
        self._touched.discard(example)
        del self._versions[example]
        for kept in (self._missing, self._had, self._former, self._put_off):
            kept.pop(example, None)

    def extend(self, example: int) -> None:
        """Lets an id wait for one more answer."""
        free = self._free(example)
        self._missing[example] = self.missing(example) + 1
        self._moved(example, free)

    def wait_for_holders(self, example: int) -> bool:
        """Lets an id wait for no answers but of those who hold it; False where none of them is missing."""
        free = self._free(example)
        self._missing[example] = min(self.missing(example), self.leases.count(example))
        self._moved(example, free)
        return self._missing[example] > 0

    # ------------------------------------------------------------------ annotators

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases ids drawn uniformly at random, one to each annotator.

        Returns:
            For each annotator the id, `NO_QUERY` where only such wait that this one has had, or put off while others
            are to come; it ends with the last id.
        """
        drawn: list[int] = []
        ids, people = [], []
        for annotator in annotators:
            if not self._waiting:
                break
            example = self._drawn_by(annotator, deadline)
            drawn.append(example)
            if example != NO_QUERY:
                ids.append(example)
                people.append(annotator)
        while drawn and drawn[-1] == NO_QUERY:
            drawn.pop()
        if ids:
            self.leases.watch(ids, people, deadline)
        return drawn

    def _drawn_by(self, annotator: int, deadline: float) -> int:
        waiting, uniform = self._waiting, self._random.random
        position = int(uniform() * len(waiting))
        if self._passes_over(waiting[position], annotator):
            may = [other for other, example in enumerate(waiting) if not self._passes_over(example, annotator)]
            if not may:
                return NO_QUERY
            position = may[int(uniform() * len(may))]
        waiting[position], waiting[-1] = waiting[-1], waiting[position]
        example = waiting[-1]
        self.leases.hold(example, annotator, deadline)
        self._touch(example)
        self._draws -= 1
        if self._free(example) <= 0:
            waiting.pop()
        return example

    def settle(self, example: int, annotator: int) -> bool:
        """Takes in that `annotator` answered an id, which stays until it is finished.

        A late answer is as good as another, for it was paid: it counts as long as answers are missing.

        Returns:
            False when the id is not here, no answer of it is missing, or this annotator never drew it.
        """
        missing, free = self.missing(example), self._free(example)
        if not missing or not self._let_go(example, annotator):
            return False
        self._missing[example] = missing - 1
        self._had.setdefault(example, set()).add(annotator)
        self._moved(example, free)
        return True

    def decline(self, example: int, annotator: int) -> bool:
        """Lets an id wait for somebody else, never again for this annotator; False where `settle` would not count."""
        free = self._free(example)
        if not self._let_go(example, annotator):
            return False
        self._had.setdefault(example, set()).add(annotator)
        self._moved(example, free)
        return True

    def take_back(self, example: int, annotator: int, deadline: float, answered: bool) -> None:
        """Lets an annotator hold an id again that he or she declined, or answered: one more answer is missing then."""
        free = self._free(example)
        self._had[example].discard(annotator)
        self._missing[example] = self.missing(example) + answered
        self.leases.hold(example, annotator, deadline)
        self.leases.watch([example], [annotator], deadline)
        self._moved(example, free)

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Passes a lease on to another annotator; False where there is no lease, or the other has had the id."""
        if annotator not in self.leases.holders(example) or self._has_had(example, other):
            return False
        deadline = self.leases.end(example, annotator)
        assert deadline is not None
        self.leases.hold(example, other, deadline)
        self.leases.watch([example], [other], deadline)
        return True

    # ------------------------------------------------------------------ leases

    def renew(self, example: int, annotator: int, deadline: float) -> bool:
        """Makes a lease end later; one that ran out begins again while an answer is missing that nobody else gives.

        Returns:
            False when the id is not here, others have it, or this annotator never drew it.
        """
        free = self._free(example)
        if annotator not in self.leases.holders(example) and (
            free <= 0 or annotator not in self._former.get(example, ())
        ):
            return False
        self.leases.hold(example, annotator, deadline)
        self.leases.watch([example], [annotator], deadline)
        self._moved(example, free)
        return True

    def give_back(self, example: int, annotator: int) -> bool:
        """Ends a lease before its time: the id waits again; whether this annotator had it."""
        if annotator not in self.leases.holders(example):
            return False
        self._return([(example, annotator)])
        return True

    def put_off(self, example: int, annotator: int) -> bool:
        """Gives an id back that this annotator shall have again only when there is nothing else."""
        if not self.give_back(example, annotator):
            return False
        self._put_off.setdefault(example, set()).add(annotator)
        return True

    def expire(self, now: float) -> list[int]:
        """Returns to the pool, and to the caller, the ids whose lease has run out."""
        return self._return(self.leases.expired(now))

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases runs out; None while there is none."""
        return self.leases.first_deadline()

    def release_all(self, below: int | None = None) -> list[int]:
        """Returns to the pool, and to the caller, all leased ids, or those of the annotators below a number."""
        return self._return([lease for lease in self.leases.all() if below is None or lease[1] < below])

    # ------------------------------------------------------------------ of one id

    def _free(self, example: int) -> int:
        """How many more may draw an id; less than none where late answers came."""
        if example not in self._versions:
            return 0
        return self.missing(example) - self.leases.count(example)

    def _moved(self, example: int, before: int) -> None:
        """Lets an id wait or not, as many may draw it now; `before` is how many might."""
        free = self._free(example)
        self._draws += max(0, free) - max(0, before)
        if before <= 0 < free:
            self._waiting.append(example)
        elif free <= 0 < before:
            self._waiting.remove(example)

    def _has_had(self, example: int, annotator: int) -> bool:
        return annotator in self._had.get(example, ()) or annotator in self.leases.holders(example)

    def _passes_over(self, example: int, annotator: int) -> bool:
        """Whether a draw of this annotator leaves an id that waits to others."""
        return self._has_had(example, annotator) or (not self.is_last and annotator in self._put_off.get(example, ()))

    def _touch(self, example: int) -> None:
        if example not in self._touched:
            self._touched.add(example)
            self._untouched[self._versions[example]] -= 1

    def _let_go(self, example: int, annotator: int) -> bool:
        """Ends what an annotator holds of an id; whether it is held, or was until its time ran out."""
        if self.leases.end(example, annotator) is None and annotator not in self._former.get(example, ()):
            return False
        self._former.get(example, set()).discard(annotator)
        return True

    def _return(self, leases: Sequence[tuple[int, int]]) -> list[int]:
        for example, annotator in leases:
            free = self._free(example)
            self.leases.end(example, annotator)
            self._former.setdefault(example, set()).add(annotator)
            self._moved(example, free)
        return [example for example, _ in leases]
