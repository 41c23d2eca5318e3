"""Where every example of a set begins in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

PARTS = ("test", "validation", "initial", "shard")
ROWS = 2**16  # at a time


class HeldOut(NamedTuple):
    """Examples of the shards that are set aside for testing and validation, where no label is known at the start.

    People label them as all others, among the first. No model chooses them, and none is trained on them.

    Attributes:
        test: int64 ids, sorted.
        validation: int64 ids, sorted.
    """

    test: np.ndarray = np.empty(0, np.int64)
    validation: np.ndarray = np.empty(0, np.int64)

    @property
    def ids(self) -> np.ndarray:
        """All of them, int64 (n,)."""
        return np.concatenate([self.test, self.validation])


class HeldOutLabels(NamedTuple):
    """What people have said of the examples that are held out.

    Attributes:
        test: int64 ids (t,).
        test_labels: int64 (t,) of these.
        validation: int64 ids (v,).
        validation_labels: int64 (v,) of these.
    """

    test: np.ndarray
    test_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray


class Sizes(NamedTuple):
    """How many images the parts of a set have; `trainable` are those that models may be trained on."""

    validation: int
    test: int
    trainable: int


@dataclass(frozen=True, eq=False)
class Partition:
    """Every id of a set exactly once, each array sorted.

    Attributes:
        test: int64 ids that choose nothing.
        validation: int64 ids that choose the epoch.
        initial: int64 ids labelled at the start.
        shards: int64 ids of each worker's part of the unlabelled pool.
        mean: (C,) float32 of the pixels that may be trained on, scaled to 0..1.
        std: (C,) float32, the same.
        initial_owner: (initial,) int64, the client that has each of the initial ids; None where all share them.
        held_out: ids of the shards that nothing is trained on.
    """

    test: np.ndarray
    validation: np.ndarray
    initial: np.ndarray
    shards: list[np.ndarray]
    mean: np.ndarray
    std: np.ndarray
    initial_owner: np.ndarray | None = None
    held_out: HeldOut = field(default_factory=HeldOut)

    @property
    def trainable(self) -> np.ndarray:
        """The ids that models may be trained on, labelled or not, sorted."""
        return np.setdiff1d(np.concatenate([self.initial, *self.shards]), self.held_out.ids)

    @property
    def sizes(self) -> Sizes:
        """How many images the parts have."""
        trainable = len(self.initial) + sum(map(len, self.shards)) - len(self.held_out.ids)
        return Sizes(len(self.validation), len(self.test), trainable)

    def owned(self, client: int) -> np.ndarray:
        """Returns the ids that are a client's own, labelled at the start or not, sorted."""
        assert self.initial_owner is not None
        return np.sort(np.concatenate([self.initial[self.initial_owner == client], self.shards[client]]))

    def rows(
        self, labels: np.ndarray, paths: Sequence[str | None] | None = None
    ) -> Iterator[tuple[int, str, int | None, int, str | None, str | None]]:
        """Yields id, part, worker, true label (-1 where unknown), source path, and what for it is held out; by id.

        In this order SQLite appends them; as they are in the shards, each would go to another page of its file.
        """
        held_out = {example: name for name, ids in self.held_out._asdict().items() for example in ids.tolist()}
        part, worker = np.full(len(labels), -1, np.int8), np.full(len(labels), -1, np.int32)
        for number, ids in enumerate((self.test, self.validation, self.initial)):
            part[ids] = number
        if self.initial_owner is not None:
            worker[self.initial] = self.initial_owner
        for index, shard in enumerate(self.shards):
            part[shard], worker[shard] = PARTS.index("shard"), index
        for start in range(0, len(labels), ROWS):
            ids = start + np.flatnonzero(part[start : start + ROWS] >= 0)
            columns = (column[ids].tolist() for column in (part, worker, labels))
            for example, place, owner, label in zip(ids.tolist(), *columns, strict=True):
                path = paths[example] if paths else None
                yield example, PARTS[place], None if owner < 0 else owner, label, path, held_out.get(example)
