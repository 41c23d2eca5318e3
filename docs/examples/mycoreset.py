"""A strategy that looks at candidates together: the greedy core set (Sener and Savarese, 2018).

aal run --config small.yaml assignment_type=DA query_strategy=mycoreset:Farthest
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


class Farthest:
    """Takes, again and again, the image farthest from all that are labelled or taken, by its embedding."""

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) int, different positions in the pool."""
        nearest = cdist(pool.embeddings, pool.labelled_embeddings).min(axis=1)
        chosen: list[int] = []
        for _ in range(count):
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, cdist(pool.embeddings, pool.embeddings[chosen[-1:]])[:, 0])
        return np.array(chosen)
