"""A committee: the newest versions of a model vote, and what they disagree about is worth a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("committee")
class Committee(ScoreStrategy):
    """Vote entropy, -sum_y v_y ln v_y with v_y the share of members that predict y (Engelson and Dagan, 1996).

    The members are the newest versions of the model, of each target where there are several: networks that were trained
    from other initial weights on other moments of L. While there is one version, the choice is random, as it is among
    candidates with equal votes.

    Cost: a pass of each member; memory of n times classes numbers a member.

    Args:
        members: versions that vote, as far as there are so many.
    """

    def __init__(self, members: Annotated[int, Field(ge=2, le=100)] = 5) -> None:
        self.versions = members

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float64, in nats."""
        return vote_entropy(pool.votes())


def vote_entropy(votes: np.ndarray) -> np.ndarray:
    """Returns the entropy of votes (members, n) int, in nats, (n,) float64."""
    shares = np.stack([(votes == name).mean(axis=0) for name in np.unique(votes)])
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=0)
