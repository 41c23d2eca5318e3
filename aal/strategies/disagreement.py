"""Disagreement of the snapshots of several target models.

Tang and Huang, "Active Learning for Multiple Target Models", 2022, and the authors' repository.
The hypotheses of a target that perform well are the snapshots of the last epochs of its training. They voted while the
network was trained (`aal.training.snapshots`), so that these strategies score no image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool

CHUNK = 65_536  # candidates whose votes are counted at a time


def disagreement(votes: np.ndarray) -> np.ndarray:
    """Returns (n,) bool: where the snapshots of one target, votes (snapshots, n), are not unanimous."""
    return (votes != votes[0]).any(axis=0)


def vote_entropy(votes: np.ndarray) -> np.ndarray:
    """Returns (n,) float64, in nats: -sum_y (n_y / T) ln(n_y / T) of the T votes (T, n) on each image.

    The sum goes over the snapshots instead of the classes: a class with n_y votes comes n_y times, so that each of its
    votes has the share -ln(n_y / T) / T. That is T^2 n comparisons, whatever the number of classes.
    """
    snapshots, images = votes.shape
    found = np.empty(images)
    for start in range(0, images, CHUNK):
        part = votes[:, start : start + CHUNK]
        same = np.stack(
            [(part == one).sum(axis=0, dtype=np.uint16) for one in part]
        )  # (T, c): n_y of each vote's class
        shares = np.append(0, -np.log(np.arange(1, snapshots + 1) / snapshots) / snapshots)
        found[start : start + CHUNK] = shares[same].sum(axis=0)
    return found


def joint_disagreement(pool: CandidatePool) -> tuple[np.ndarray, np.ndarray]:
    """Returns c (n,) int, how many targets' snapshots are not unanimous, and h (n,), the sum of their vote entropies.

    Few images are ambiguous to a target: the entropy is computed of these alone, and is 0 elsewhere.
    """
    regions, entropies = np.zeros(len(pool), np.int64), np.zeros(len(pool))
    for target in range(pool.model_count):
        votes = pool.votes_of(target)
        ambiguous = np.flatnonzero(disagreement(votes))
        regions[ambiguous] += 1
        entropies[ambiguous] += vote_entropy(votes[:, ambiguous])
    return regions, entropies


def ranking(pool: CandidatePool, rng: np.random.RandomState) -> np.ndarray:
    """Returns the positions (n,) by c, then by h, both descending; ties at random."""
    regions, entropies = joint_disagreement(pool)
    return np.lexsort((rng.permutation(len(pool)), -entropies, -regions))


@STRATEGIES.register("diam", scores=False, votes=True)
class DIAM:
    """Joint disagreement, then vote entropy: at random from the top of the ranking.

    Candidates rank by c(x) = sum_m [the snapshots of target m are not unanimous on x], then by h(x) = sum_m H_m(x) with
    H_m the entropy of their votes. Of the top `shortlist * count` a random `count` is taken, which keeps a batch
    diverse. No pass; memory T * M bytes a candidate.

    Args:
        shortlist: how many times the batch the random choice is from; 1 takes the top itself.
    """

    def __init__(self, shortlist: Annotated[float, Field(ge=1, le=1e6)] = 5.0) -> None:
        self.shortlist = shortlist

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses candidates; see `aal.strategies.strategy.Strategy`."""
        top = ranking(pool, rng)[: max(count, round(self.shortlist * count))]
        return rng.permutation(top)[:count]


@STRATEGIES.register("cal", scores=False, votes=True)
class CAL:
    """Uniformly from the union of the disagreement regions of all targets (Cohn, Atlas and Ladner, 1994).

    Where the union is smaller than the batch, the rest is taken at random. No pass.
    """

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses candidates; see `aal.strategies.strategy.Strategy`."""
        union = np.zeros(len(pool), bool)
        for target in range(pool.model_count):
            union |= disagreement(pool.votes_of(target))
        order = rng.permutation(len(pool))
        return order[np.argsort(~union[order], kind="stable")][:count]


@STRATEGIES.register("diam_qp", votes=True, package="osqp")
class DIAMQuadratic:
    """Disagreement against redundancy, by a quadratic program (the extension in the authors' repository).

    Of the top `min(n / 5, most)` of the ranking by c and h, s solves min s'Ks / 2 - weight c's subject to 1's = count,
    0 <= s <= 1; the `count` largest are taken. K counts, over the targets, who is among whose nearest 1 % by embedding,
    made symmetric and positive semidefinite. A pass of these for each target; memory about 45 * most^2 bytes, time
    most^3: 2 s of one core for 800, 8 s for 1,400.

    Args:
        weight: of the disagreement against the redundancy.
        most: candidates of the program; 15,000 as published would take 10 GB and hours.
    """

    def __init__(
        self,
        weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0,
        most: Annotated[int, Field(ge=1, le=20_000)] = 1000,
    ) -> None:
        self.weight, self.most = weight, most

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses candidates; see `aal.strategies.strategy.Strategy`."""
        from aal.strategies.quadratic import choose, neighbour_kernel

        top = ranking(pool, rng)[: max(count, min(len(pool) // 5, self.most))]
        part = pool.subset(top)
        kernel = neighbour_kernel([part.embeddings_of(target) for target in range(pool.model_count)])
        regions, _ = joint_disagreement(part)
        return top[choose(kernel, self.weight * regions, count)]
