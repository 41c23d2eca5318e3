"""Uncertainty of the predicted class probabilities, float32 (n, classes)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("entropy", aliases=("UncertaintyEntropy",))
class Entropy(ScoreStrategy):
    """Entropy of the predicted distribution, -sum_y p_y ln p_y (Holub et al., 2008); 0 ln 0 is 0."""

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float32, in nats."""
        probabilities = pool.probabilities
        safe = np.where(probabilities > 0, probabilities, np.float32(1))
        entropies = -(probabilities * np.log(safe)).sum(axis=1)
        return np.where(np.isnan(probabilities).any(axis=1), np.float32(np.nan), entropies)


@STRATEGIES.register("least_confidence", aliases=("Uncertainty",))
class LeastConfidence(ScoreStrategy):
    """One minus the largest probability (Li and Sethi, 2006)."""

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float32, from 0 to 1."""
        return 1 - pool.probabilities.max(axis=1)


@STRATEGIES.register("margin", aliases=("UncertaintyMargin",))
class Margin(ScoreStrategy):
    """Minus the gap between the two largest probabilities (Balcan et al., 2007); 0 where there is one class."""

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float32, from -1 to 0."""
        probabilities = pool.probabilities
        if probabilities.shape[1] < 2:
            return np.zeros(len(probabilities), np.float32)
        top = np.partition(probabilities, -2, axis=1)
        return top[:, -2] - top[:, -1]
