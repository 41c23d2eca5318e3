"""Cluster-Margin: uncertain candidates, taken from as many clusters as there are; made for large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import top_k
from aal.strategies.uncertainty import Margin

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("cluster_margin", models="first")
class ClusterMargin:
    """The smallest margins, one of each cluster in turn, the smallest cluster first (Citovsky et al., 2021).

    Algorithm 2: of the k_m candidates with the smallest margins, k_t are taken; algorithm 3: round by round, one at
    random of each cluster, in ascending order of size. Clusters are those of average linkage (algorithm 1). The paper
    clusters the whole pool once, with the embeddings of its first model, down to a distance; here the k_m candidates
    are clustered with those of the newest model, down to a number of clusters: no distance fits the embeddings of every
    network, and k_m does not grow with the pool.

    Cost: a pass; k_m^2 d multiplications. Memory: a copy of the probabilities, and k_m^2 numbers, at most 550 MiB: more
    than 12,000 candidates are halved first, where they vary most.

    Args:
        candidates: k_m for each one to choose.
        cluster_size: mean size of a cluster.
    """

    def __init__(
        self, candidates: Annotated[int, Field(ge=1)] = 10, cluster_size: Annotated[int, Field(ge=1)] = 10
    ) -> None:
        self.candidates, self.cluster_size = candidates, cluster_size

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) positions in the order of choice."""
        from aal.strategies.clustering import average_linkage  # PyTorch: a check of the options need not wait for it
        from aal.strategies.distances import tensor_of

        margins = Margin().uncertainty(pool.probabilities)
        known = max(count, int(np.isfinite(margins).sum()))  # those of a broken network come last
        near = top_k(margins, min(known, self.candidates * count), rng)
        rows = tensor_of(pool.embeddings[near])
        return near[in_turn(average_linkage(rows, -(-len(near) // self.cluster_size)), count, rng)]


def in_turn(labels: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Takes one of each cluster at random, the smallest cluster first, and again until there are enough.

    Args:
        labels: (n,) the cluster of each, from 0.
        count: how many, at most n.
        rng: draws among those of a cluster, and the order of clusters of the same size.

    Returns:
        (count,) int64 positions in the order of choice.
    """
    sizes = np.bincount(labels)
    order = np.lexsort((rng.permutation(len(sizes)), sizes))
    turns = np.argsort(order)[labels]  # of the cluster of each, within a round
    mixed = rng.permutation(len(labels))
    grouped = mixed[np.argsort(turns[mixed], kind="stable")]  # cluster by cluster
    rounds = np.concatenate([np.arange(size) for size in sizes[order]])
    return grouped[np.argsort(rounds, kind="stable")[:count]]
