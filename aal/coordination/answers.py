"""Every answer that counts: who gave which label to which image, and what these labels come to."""

import collections
import enum
from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np

CANNOT_TELL = -1  # in the place of a label
UNDO = 100  # last answers of each annotator that can be taken back


class Kind(enum.StrEnum):
    """What a row of the table `answers` is."""

    LABEL = "label"
    CANNOT_TELL = "cannot tell"  # an answer without a label
    CHECK = "check"  # of a known image
    UNDO = "undo"  # the last answer of this annotator is taken back
    CORRECTION = "correction"  # the last word, by a supervisor


class Said(NamedTuple):
    """Something that an annotator said of an image.

    Attributes:
        example: id of the image.
        annotator: who.
        label: the class; None where there is none.
        kind: what it is.
    """

    example: int
    annotator: int
    label: int | None
    kind: Kind


class Aggregation(Protocol):
    """Makes one label of several answers. Register a class with `@AGGREGATIONS.register("name")`.

    It is built with the number of classes.
    """

    def decide(self, annotators: list[int], labels: list[int]) -> tuple[int, float]:
        """Returns the label of an image and how sure it is, from 0 to 1.

        Args:
            annotators: who answered, in order of their answers.
            labels: that they gave, each.
        """
        ...

    def fit(
        self, items: np.ndarray, annotators: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Learns from all answers, before a training, how far each annotator can be trusted.

        Args:
            items: (n,) int64 ids of the answers.
            annotators: (n,) int64 of the answers.
            labels: (n,) int64 of the answers.

        Returns:
            The ids (m,), their labels (m,) and how sure these are (m,); None where an image's own answers decide alone.
        """
        ...


class Answers:
    """The answers that stand, the last word of each annotator for each image.

    Args:
        aggregation: makes one label of several.
        wanted: answers that an image gets.
        at_most: answers that it may get where no class has more than half of them.

    Attributes:
        number: rows that there are of what annotators said, whether it stands or not.
    """

    def __init__(self, aggregation: Aggregation, wanted: int = 1, at_most: int = 1) -> None:
        self.aggregation = aggregation
        self.wanted = wanted
        self.number = 0
        self._at_most = max(wanted, at_most)
        self._open: dict[int, dict[int, int]] = {}  # of ids in S: annotator -> label, in order of answers
        self._log = np.empty((3, 1024), np.int64)  # ids, annotators, labels of those whose image is labelled
        self._logged = 0
        self._recent: dict[int, collections.deque[tuple[int, Kind]]] = {}  # of each annotator: the last answers

    # ------------------------------------------------------------------ of one image

    def add(self, example: int, annotator: int, label: int, kind: Kind) -> None:
        """Takes in an answer; one of the kind `LABEL` is to an id in S."""
        if kind is Kind.LABEL:
            self._open.setdefault(example, {})[annotator] = label
        recent = self._recent.get(annotator)
        if recent is None:
            recent = self._recent[annotator] = collections.deque(maxlen=UNDO)
        recent.append((example, kind))

    def of(self, example: int) -> dict[int, int]:
        """Returns who gave which label to an id in S."""
        return self._open.get(example, {})

    def are_enough(self, example: int) -> bool:
        """Whether an id needs no other answer: it has those wanted, and one class has most of them or no more may."""
        labels = list(self._open[example].values())
        if len(labels) < self.wanted:
            return False
        return len(labels) >= self._at_most or 2 * max(map(labels.count, labels)) > len(labels)

    def close(self, example: int) -> tuple[int, float] | None:
        """Takes in that an id leaves S; returns its label and how sure that is, None where it has no answer."""
        answers = self._open.pop(example, None)
        if not answers:
            return None
        people, labels = list(answers), list(answers.values())
        self._keep(example, people, labels)
        return self.aggregation.decide(people, labels)

    def close_all_but(self, ids: Collection[int]) -> None:
        """Takes in, when a run goes on, which ids are in S; the labels of the others are known already."""
        for example in self._open.keys() - ids:
            answers = self._open.pop(example)
            self._keep(example, list(answers), list(answers.values()))

    def _keep(self, example: int, annotators: list[int], labels: list[int]) -> None:
        end = self._logged + len(labels)
        if end > self._log.shape[1]:
            self._log = np.concatenate([self._log, np.empty_like(self._log)], axis=1)
        place = slice(self._logged, end)
        self._log[0, place], self._log[1, place], self._log[2, place] = example, annotators, labels
        self._logged = end

    def reopen(self, example: int) -> dict[int, int]:
        """Takes in that a labelled id comes back to S; returns who gave which label to it."""
        log = self._log[:, : self._logged]
        mine = log[0] == example
        answers = dict(log[1:, mine].T.tolist())
        self._log[:, : self._logged - len(answers)] = log[:, ~mine]
        self._logged -= int(mine.sum())
        self._open[example] = answers
        return answers

    def drop(self, example: int, annotator: int) -> None:
        """Takes back an answer to an id in S."""
        self._open.get(example, {}).pop(annotator, None)

    # ------------------------------------------------------------------ of all

    def last_of(self, annotator: int) -> tuple[int, Kind] | None:
        """Returns what an annotator answered last and forgets that; None where there is nothing."""
        recent = self._recent.get(annotator)
        return recent.pop() if recent else None

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns ids, annotators and labels of the answers of all labelled images, int64 (n,) each."""
        ids, annotators, labels = self._log[:, : self._logged].copy()
        return ids, annotators, labels
