"""Committees: versions of a model, or snapshots of one training, vote; what they disagree on is worth a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES
from aal.strategies.disagreement import vote_entropy
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


@STRATEGIES.register("snapshot_committee", scores=False, votes=True)
class SnapshotCommittee(ScoreStrategy):
    """Vote entropy of the snapshots of one training, summed over targets; equal ones at random.

    The members are the networks of the last epochs of the newest version (the setting `snapshots`), as in snapshot
    ensembles (Huang et al., 2017): there from the first version on, and cast while the network was trained. No pass;
    memory a byte a vote.
    """

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float64, in nats."""
        return np.sum([vote_entropy(pool.votes_of(target)) for target in range(pool.model_count)], axis=0)
