"""Where every example of a set begins in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """How many images the parts of a set have; `trainable` are the initial ones and those of the shards."""

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
        mean: (C,) float32 of the pixels that may be trained on (initial and shards), scaled to 0..1.
        std: (C,) float32, the same.
        initial_owner: (initial,) int64, the client that has each of the initial ids; None where all share them.
    """

    test: np.ndarray
    validation: np.ndarray
    initial: np.ndarray
    shards: list[np.ndarray]
    mean: np.ndarray
    std: np.ndarray
    initial_owner: np.ndarray | None = None

    @property
    def sizes(self) -> Sizes:
        """How many images the parts have."""
        return Sizes(len(self.validation), len(self.test), len(self.initial) + sum(map(len, self.shards)))

    def owned(self, client: int) -> np.ndarray:
        """Returns the ids that are a client's own, labelled at the start or not, sorted."""
        assert self.initial_owner is not None
        return np.sort(np.concatenate([self.initial[self.initial_owner == client], self.shards[client]]))

    def rows(
        self, labels: np.ndarray, paths: Sequence[str | None] | None = None
    ) -> Iterator[tuple[int, str, int | None, int, str | None]]:
        """Yields id, part, worker, true label (-1 where unknown) and source path of every id."""
        initial: list[tuple[np.ndarray, str, int | None]] = [(self.initial, "initial", None)]
        if self.initial_owner is not None:
            owner = self.initial_owner
            initial = [(self.initial[owner == client], "initial", client) for client in range(len(self.shards))]
        places: list[tuple[np.ndarray, str, int | None]] = [
            *((getattr(self, name), name, None) for name in ("test", "validation")),
            *initial,
            *((shard, "shard", worker) for worker, shard in enumerate(self.shards)),
        ]
        for ids, part, worker in places:
            for example, label in zip(ids.tolist(), labels[ids].tolist(), strict=True):
                yield example, part, worker, label, paths[example] if paths else None
