"""A strategy of one's own.

python main.py --config digits.yaml assignment_type=DA query_strategy=mystrategies:Disagreement
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


class Disagreement(ScoreStrategy):
    """Takes the images whose nearest labelled images, by their embeddings, say something else than the network.

    Args:
        neighbours: labelled images that are asked for each candidate.
    """

    uses_embeddings = True  # so that the pass that gives the probabilities keeps them

    def __init__(self, neighbours: Annotated[int, Field(ge=1)] = 5) -> None:
        self.neighbours = neighbours

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns the total variation distance between predictions and votes, (n,) float32, from 0 to 1."""
        probabilities, known = pool.probabilities, pool.labelled_embeddings
        # |a - b|^2 = |a|^2 - 2 ab + |b|^2, of which |a|^2 does not change the order.
        distances = (known**2).sum(axis=1) - 2 * pool.embeddings @ known.T
        nearest = np.argsort(distances, axis=1)[:, : self.neighbours]
        votes = np.eye(probabilities.shape[1], dtype=np.float32)[pool.labels[nearest]].mean(axis=1)
        return np.abs(probabilities - votes).sum(axis=1) / 2
