"""Uncertainty of the predicted class probabilities, float32 (n, classes).

Where a grant holds the models of several targets, it is the mean over the targets of their uncertainties, each scaled
to 0..1 over the candidates (the baselines of Tang and Huang, "Active Learning for Multiple Target Models", 2022, whose
published code scales a row of one image instead, so that all its scores are 0).
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


class Uncertainty(ScoreStrategy):
    """Base of the strategies that score an image by the class probabilities alone: a pass for each target."""

    @abc.abstractmethod
    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (n,) float32 of probabilities (n, classes): the larger, the less certain."""

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float32: the uncertainty, of several targets the mean of theirs, scaled, in float32."""
        if pool.model_count == 1:
            return self.uncertainty(pool.probabilities)
        # In one precision: what is scored again would be scaled by the range of a part of the candidates.
        exact = pool.subset(np.arange(len(pool)), precision="float32")
        targets = range(pool.model_count)
        return np.mean([_scaled(self.uncertainty(exact.probabilities_of(target))) for target in targets], axis=0)


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Returns scores (n,) mapped to 0..1 over all of them; zeros where all are equal, NaN where they are NaN."""
    if not np.isfinite(scores).any():
        return scores
    least, most = np.nanmin(scores), np.nanmax(scores)
    return (scores - least) / (most - least if most > least else 1)


@STRATEGIES.register("entropy", aliases=("UncertaintyEntropy",))
class Entropy(Uncertainty):
    """Entropy of the predicted distribution, -sum_y p_y ln p_y (Holub et al., 2008); 0 ln 0 is 0."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (n,) float32, in nats."""
        safe = np.where(probabilities > 0, probabilities, np.float32(1))
        entropies = -(probabilities * np.log(safe)).sum(axis=1)
        return np.where(np.isnan(probabilities).any(axis=1), np.float32(np.nan), entropies)


@STRATEGIES.register("least_confidence", aliases=("Uncertainty",))
class LeastConfidence(Uncertainty):
    """One minus the largest probability (Li and Sethi, 2006)."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (n,) float32, from 0 to 1."""
        return 1 - probabilities.max(axis=1)


@STRATEGIES.register("margin", aliases=("UncertaintyMargin",))
class Margin(Uncertainty):
    """Minus the gap between the two largest probabilities (Balcan et al., 2007); 0 where there is one class."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (n,) float32, from -1 to 0."""
        if probabilities.shape[1] < 2:
            return np.zeros(len(probabilities), np.float32)
        top = np.partition(probabilities, -2, axis=1)
        return top[:, -2] - top[:, -1]
