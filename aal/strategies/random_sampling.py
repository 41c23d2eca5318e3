"""Random sampling, the baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("random", scores=False)
class Random(ScoreStrategy):
    """Scores all images alike, so that the choice among the ties is random."""

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) zeros."""
        return np.zeros(len(pool), np.float32)
