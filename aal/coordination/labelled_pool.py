"""L, the labelled pool: ids and labels in order of arrival."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from aal.coordination.partition import HeldOut, HeldOutLabels

NO_LABEL = -1  # at a place in L whose label was taken back
NOTABLE = 0.01  # a change of confidence


class Label(NamedTuple):
    """A label of L as it is now.

    Attributes:
        place: in L, from 0, after the initial labels.
        example: its id.
        label: the class; `NO_LABEL` where it was taken back.
        confidence: how sure it is, from 0 to 1.
        annotator: whose answer was the last; None where no new one has come.
        is_new: whether the place is new.
    """

    place: int
    example: int
    label: int
    confidence: float
    annotator: int | None
    is_new: bool


class LabelledPool:
    """L: ids and their labels in order of arrival.

    It only grows, so a training set is a prefix of it. A label may change; one that is taken back leaves its place
    empty, until the id is labelled again.

    Args:
        size: ids of the whole set. What is not used yet costs no memory.
        held_out: ids that nothing is trained on.
    """

    def __init__(self, size: int, held_out: HeldOut | None = None) -> None:
        self._held_out = held_out or HeldOut()
        self._ids = np.empty(size, np.int64)
        self._labels = np.empty(size, np.int64)
        self._confidences = np.empty(size, np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray, confidence: float = 1.0) -> None:
        """Appends labels; the caller has checked that the ids may be labelled."""
        end = self._count + len(ids)
        self._ids[self._count : end] = ids
        self._labels[self._count : end] = labels
        self._confidences[self._count : end] = confidence
        self._count = end

    def place_of(self, example: int) -> int | None:
        """Returns the place of an id; None where it has none. It searches all of L."""
        found = np.flatnonzero(self._ids[: self._count] == example)
        return int(found[0]) if found.size else None

    def change(self, place: int, label: int, confidence: float = 1.0) -> None:
        """Changes a label, or takes it back with `NO_LABEL`."""
        self._labels[place], self._confidences[place] = label, confidence

    def revise(
        self, ids: np.ndarray, labels: np.ndarray, confidences: np.ndarray, fixed: Collection[int] = ()
    ) -> list[tuple[int, int, int, float]]:
        """Takes in other labels of ids, as far as these are here and hold one.

        Args:
            ids: of the examples, ascending.
            labels: (n,) of these.
            confidences: (n,) of these.
            fixed: ids whose labels stay.

        Returns:
            (place in L, id, label, confidence) of those that have changed, if only the confidence by a hundredth.
        """
        if not len(ids):
            return []
        at = np.minimum(np.searchsorted(ids, self._ids[: self._count]), len(ids) - 1)
        there = (ids[at] == self._ids[: self._count]) & (self._labels[: self._count] != NO_LABEL)
        there &= ~np.isin(self._ids[: self._count], list(fixed))
        differ = labels[at] != self._labels[: self._count]
        differ |= np.abs(confidences[at] - self._confidences[: self._count]) >= NOTABLE
        changed = np.flatnonzero(there & differ)
        self._labels[changed], self._confidences[changed] = labels[at[changed]], confidences[at[changed]]
        columns = (changed, self._ids[changed], self._labels[changed], confidences[at[changed]])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def label_at(self, place: int) -> int:
        """Returns a label; `NO_LABEL` where there is none."""
        return int(self._labels[place])

    @property
    def can_train(self) -> bool:
        """Whether there is a label that a model may be trained on."""
        return bool(self.between(0, self._count)[0].size)

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels of the places `start` to `stop` that models may be trained on, as int64 arrays."""
        stop = min(stop, self._count)
        ids, labels = self._ids[start:stop], self._labels[start:stop]
        there = (labels != NO_LABEL) & ~np.isin(ids, self._held_out.ids)
        return ids[there], labels[there]

    def held_out(self, stop: int) -> HeldOutLabels:
        """Returns the labels of the first `stop` places that are held out."""
        stop = min(stop, self._count)
        ids, labels = self._ids[:stop], self._labels[:stop]
        test, validation = ((labels != NO_LABEL) & np.isin(ids, part) for part in self._held_out)
        return HeldOutLabels(ids[test], labels[test], ids[validation], labels[validation])
