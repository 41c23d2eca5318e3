"""The pools as plain data: no processes, no waiting, no clock of their own.

`Pools` is the one home of an example's state; `QueryPool` and `LabelledPool` keep the order of S and L, `Answers` what
people said of the images in them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from aal.coordination.answers import CANNOT_TELL, Answers, Kind, Said
from aal.coordination.checks import Checks
from aal.coordination.labelled_pool import NO_LABEL, Label, LabelledPool
from aal.coordination.partition import Partition
from aal.coordination.query_pool import NO_MODEL, NO_QUERY, QueryPool
from aal.coordination.shards import LABELLED, QUERIED, RETIRED, UNLABELLED, Shards


class Outcome(NamedTuple):
    """What answers, or corrections, came to.

    Attributes:
        kinds: what each answer is; None where it does not count.
        labels: that are new in L, or others than before.
        retired: ids that are to have no label.
    """

    kinds: list[Kind | None]
    labels: list[Label]
    retired: list[int]


class Pools(Shards):
    """Every example in exactly one place: outside (testing, validation), a shard D_j, S, L, or retired.

    Args:
        partition: where every id begins.
        labels: (n,) true label of every id, -1 where it is unknown; those of the initial ids are used.
        bound: of S.
        seed: of the draws from S, and of ids that no model chooses.
        answers: of all annotators.
        cannot_tell: annotators who cannot tell what an image is, before it is shown to nobody else.
        checks: known images to mix in; None for none.

    Attributes:
        revision: how often people changed a label that was in L.
    """

    def __init__(
        self,
        partition: Partition,
        labels: np.ndarray,
        bound: int,
        seed: int,
        answers: Answers,
        cannot_tell: int = 1,
        checks: Checks | None = None,
    ) -> None:
        super().__init__(partition, len(labels), seed)
        self.answers = answers
        self.queries = QueryPool(bound, seed, answers.wanted)
        self.labelled = LabelledPool(len(labels), partition.held_out)
        self.initial = len(partition.initial)
        self.revision = 0
        self._cannot_tell = cannot_tell
        self._checks = checks
        self._declined: dict[int, set[int]] = {}  # of ids: who could not tell
        self._places: dict[int, int] = {}  # in L, of ids that came back to S
        self._final: set[int] = set()  # ids that a supervisor has decided
        self._state[partition.initial] = LABELLED
        self.labelled.add(partition.initial, labels[partition.initial])

    @property
    def labels(self) -> int:
        """Size of L."""
        return len(self.labelled)

    @property
    def idle(self) -> bool:
        """Whether S is empty and nothing is leased."""
        return not len(self.queries)

    @property
    def offered(self) -> int:
        """Ids that were offered and not withdrawn or retired: in S, on lease, or in L."""
        return self.labels - self.initial + len(self.queries) - len(self._places)

    # ------------------------------------------------------------------ between shards and S

    def withdraw(self, version: int, count: int) -> list[int]:
        """Moves up to `count` ids, that nobody has drawn and models before a version chose, from S to their shards."""
        ids = self.queries.withdraw(version, count)
        self._put_back(ids)
        return ids

    def offer(self, worker: int, ids: Sequence[int], version: int = NO_MODEL) -> None:
        """Moves ids from a shard to S; raises `ValueError` for what `_take` refuses.

        Args:
            worker: whose shard they are in.
            ids: of the examples.
            version: of the newest model that chose them.
        """
        held_out = self._take(worker, ids, is_chosen=version != NO_MODEL)
        self.queries.offer(ids, version)
        for example in held_out:  # which no newer model takes out again
            self.queries.keep(example, missing=self.answers.wanted)

    def unanswered(self, version: int = NO_MODEL) -> list[int]:
        """Returns the ids that are chosen and not answered yet, see `QueryPool.unanswered`, none that is held out."""
        return [example for example in self.queries.unanswered(version) if not self._is_held_out[example]]

    # ------------------------------------------------------------------ from S to L

    def draw(self, annotators: Sequence[int], deadline: float) -> list[int]:
        """Leases random queries of S, and now and then shows a known image in the place of one.

        Returns:
            For each annotator the id, `NO_QUERY` where S holds none for this one; it ends with the last id.
        """
        if self._checks is None:
            return self.queries.draw(annotators, deadline)
        drawn = [self._checks.draw(annotator) for annotator in annotators[: self.queries.draws]]
        left = [place for place in range(len(annotators)) if place >= len(drawn) or drawn[place] == NO_QUERY]
        drawn += [NO_QUERY] * (len(annotators) - len(drawn))
        queries = self.queries.draw([annotators[place] for place in left], deadline)
        for place, example in zip(left, queries, strict=False):
            drawn[place] = example
        while drawn and drawn[-1] == NO_QUERY:
            drawn.pop()
        return drawn

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Passes a lease on to another annotator; False where there is none, or the other has had the id."""
        if self._checks is not None and self._checks.pass_on(example, annotator, other):
            return True
        return self.queries.pass_on(example, annotator, other)

    def answer(self, ids: Sequence[int], annotators: Sequence[int], labels: Sequence[int]) -> Outcome:
        """Takes in answers; an id that has all that it needs goes from S to L, once.

        One that enough annotators could not tell is shown to nobody else: the answers that it has when those who hold
        it are done decide, and without any it is retired.

        Args:
            ids: that were answered.
            annotators: by whom, each.
            labels: with which class, each; or `CANNOT_TELL`.
        """
        outcome = Outcome([], [], [])
        for example, annotator, label in zip(ids, annotators, labels, strict=True):
            kind = self._taken_as(example, annotator, label)
            outcome.kinds.append(kind)
            if kind is not None:
                self.answers.add(example, annotator, label, kind)
                if kind is not Kind.CHECK:
                    self._decide(example, annotator, kind, outcome)
        return outcome

    def _taken_as(self, example: int, annotator: int, label: int) -> Kind | None:
        if self._checks is not None and self._checks.settle(example, annotator):
            return Kind.CHECK
        if label == CANNOT_TELL:
            return Kind.CANNOT_TELL if self.queries.decline(example, annotator) else None
        return Kind.LABEL if self.queries.settle(example, annotator) else None

    def _decide(self, example: int, annotator: int, kind: Kind, outcome: Outcome) -> None:
        """Moves an id out of S that is to get no more answers; asks for one more where they disagree."""
        if kind is Kind.CANNOT_TELL:
            self._declined.setdefault(example, set()).add(annotator)
        if len(self._declined.get(example, ())) >= self._cannot_tell:
            if self.queries.wait_for_holders(example):  # whose answers are as good as any
                return
        elif kind is Kind.CANNOT_TELL or self.queries.missing(example):
            return
        elif not self.answers.are_enough(example):
            self.queries.extend(example)
            return
        decided = self.answers.close(example)
        if decided is None:
            self._retire(example, outcome)
        else:
            self._label(example, *decided, annotator, outcome)

    def _label(self, example: int, label: int, confidence: float, annotator: int, outcome: Outcome) -> None:
        self._leave(example)
        place = self._places.pop(example, None)
        is_new = place is None
        if place is None:
            place = self.labels
            self.labelled.add([example], [label], confidence)
        else:
            self.labelled.change(place, label, confidence)
            self.revision += 1
        self._state[example] = LABELLED
        outcome.labels.append(Label(place - self.initial, example, label, confidence, annotator, is_new))

    def _retire(self, example: int, outcome: Outcome) -> None:
        """Takes an id out of S for good; one that had a label leaves its place in L empty."""
        self._leave(example)
        self._state[example] = LABELLED if self._places.pop(example, None) is not None else RETIRED
        outcome.retired.append(example)

    def _leave(self, example: int) -> None:
        if self._state[example] == QUERIED:
            self.queries.finish(example)

    # ------------------------------------------------------------------ second thoughts

    def undo(self, annotator: int, deadline: float, outcome: Outcome) -> int | None:
        """Takes back the last answer of an annotator, who holds its id again.

        A label that rests on it leaves L until the answer is there again, and keeps its place.

        Args:
            annotator: whose answer it is.
            deadline: of the lease.
            outcome: is added to.

        Returns:
            The id; None where there is nothing to take back, or a supervisor has decided.
        """
        while (said := self.answers.last_of(annotator)) is not None:
            example, kind = said
            if kind is Kind.CHECK:
                if self._checks is not None:
                    self._checks.show(example, annotator)
                return example
            if example in self._final:
                continue
            if self._state[example] != QUERIED:
                self._reopen(example, annotator, outcome)
            if kind is Kind.CANNOT_TELL:
                self._declined[example].discard(annotator)
            self.answers.drop(example, annotator)
            self.queries.take_back(example, annotator, deadline, answered=kind is Kind.LABEL)
            return example
        return None

    def _reopen(self, example: int, annotator: int, outcome: Outcome) -> None:
        """Moves an id from L, or from those that are to have no label, back to S."""
        votes = self.answers.reopen(example)
        if self._state[example] == LABELLED:
            place = self.labelled.place_of(example)
            assert place is not None
            if self.labelled.label_at(place) != NO_LABEL:
                self._empty(place, example, annotator, outcome)
            self._places[example] = place
        self._state[example] = QUERIED
        self.queries.offer([example])
        given = len(votes) - (annotator in votes)
        missing = max(1, self.answers.wanted - given) - (annotator in votes)
        self.queries.keep(example, had={*votes, *self._declined.get(example, ()), annotator}, missing=missing)

    def correct(self, example: int, label: int, supervisor: int, outcome: Outcome) -> bool:
        """Decides the label of an id that was offered, for good; `CANNOT_TELL`: it is to have none.

        Returns:
            False where the id is in no place in which anybody was asked for its label.
        """
        place = self.labelled.place_of(example) if self._state[example] == LABELLED else None
        if self._state[example] not in (QUERIED, LABELLED, RETIRED) or (place is not None and place < self.initial):
            return False
        self._final.add(example)
        self.answers.close(example)
        if place is not None:
            self._places[example] = place
        if label != CANNOT_TELL:
            self._label(example, label, 1.0, supervisor, outcome)
            return True
        if example in self._places:
            self._empty(self._places[example], example, supervisor, outcome)
        self._retire(example, outcome)
        return True

    def _empty(self, place: int, example: int, annotator: int, outcome: Outcome) -> None:
        """Takes the label of a place in L back."""
        self.labelled.change(place, NO_LABEL)
        self.revision += 1
        outcome.labels.append(Label(place - self.initial, example, NO_LABEL, 0.0, annotator, False))

    def revise(self, ids: np.ndarray, labels: np.ndarray, confidences: np.ndarray) -> list[Label]:
        """Takes in what an aggregation makes of all answers; returns what has changed.

        Args:
            ids: of examples, ascending; those that left L meanwhile, or that a supervisor decided, stay as they are.
            labels: (n,) of these.
            confidences: (n,) of these.
        """
        changed = self.labelled.revise(ids, labels, confidences, self._final)
        return [
            Label(place - self.initial, example, label, confidence, None, False)
            for place, example, label, confidence in changed
        ]

    # ------------------------------------------------------------------ after a break

    def restore(
        self,
        labels: Sequence[tuple[int, int | None]],
        unanswered: Sequence[tuple[int, int, Collection[int]]],
        said: Iterable[Said] = (),
        retired: Collection[int] = (),
    ) -> None:
        """Takes in what a former process left.

        Args:
            labels: (id, label, or None where it was taken back) in the order of L.
            unanswered: (id, version that chose it, who drew it) of the queries, which all wait again.
            said: every answer, in order.
            retired: ids that are to have no label.
        """
        if labels:
            ids = [example for example, _ in labels]
            self.labelled.add(ids, [NO_LABEL if label is None else label for _, label in labels])
            self._state[ids] = LABELLED
        self._state[[example for example in retired if self._state[example] == UNLABELLED]] = RETIRED
        self._recall(said)
        places = {example: self.initial + place for place, (example, label) in enumerate(labels) if label is None}
        for example, version, drawers in unanswered:
            self._state[example] = QUERIED
            self.queries.offer([example], version)
            votes, others = self.answers.of(example), self._declined.get(example, ())
            if example in places:
                self._places[example] = places[example]
            if votes or others or drawers or example in places or self._is_held_out[example]:
                missing = max(1, self.answers.wanted - len(votes))
                self.queries.keep(example, drawers, {*votes, *others}, missing)
        self.answers.close_all_but({example for example, *_ in unanswered})
        self._count_left()

    def _recall(self, said: Iterable[Said]) -> None:
        """Takes in every answer, in order."""
        for example, annotator, label, kind in said:
            self.answers.number += 1
            if kind is Kind.CORRECTION:
                self._final.add(example)
            elif kind is Kind.UNDO:
                while (last := self.answers.last_of(annotator)) is not None and last[0] != example:
                    pass
                self.answers.drop(example, annotator)
                self._declined.get(example, set()).discard(annotator)
            else:
                self.answers.add(example, annotator, -1 if label is None else label, kind)
                if kind is Kind.CANNOT_TELL:
                    self._declined.setdefault(example, set()).add(annotator)
                elif kind is Kind.CHECK and self._checks is not None:
                    self._checks.show(example, annotator)
                    self._checks.settle(example, annotator)
