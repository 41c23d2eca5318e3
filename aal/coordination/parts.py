"""Where every image of a set begins in a run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parts:
    """Where every id of the set begins; together they hold each id once.

    Attributes:
        classes: number of classes, the bound of a label.
        truth: (n,) the true label of every id.
        test, validation, initial: ids; the initial ones are labelled truly from the start.
        shards: the unlabelled ids of each worker.
    """

    classes: int
    truth: np.ndarray
    test: np.ndarray
    validation: np.ndarray
    initial: np.ndarray
    shards: list[np.ndarray]

    def rows(self) -> Iterator[tuple[int, str, int | None, int]]:
        """Yields item, part, worker and true label of every id, for the table `examples`."""
        places: list[tuple[np.ndarray, str, int | None]] = [
            *((getattr(self, name), name, None) for name in ("test", "validation", "initial")),
            *((shard, "shard", worker) for worker, shard in enumerate(self.shards)),
        ]
        for items, part, worker in places:
            for item, label in zip(items.tolist(), self.truth[items].tolist(), strict=True):
                yield item, part, worker, label
