"""LoGo: groups by what a client's model does not know, then by what the server's does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES
from aal.strategies.ensemble import check_both
from aal.strategies.uncertainty import Entropy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("logo", local_and_global=True)
class LoGo:
    """Clusters by the client's model, of each the image that the server's is least certain of (Kim et al., 2023).

    "Re-thinking Federated Active Learning based on Inter-class Diversity", as query_strategies/fal/logo.py of its
    authors' repository has it. Macro step: k-means into `count` clusters of the gradients x (1 - p_y) by the client's
    model, with x the embedding and y the predicted class. Micro step: of each cluster the candidate with the largest
    entropy by the server's model; where there are fewer clusters, the second ones follow, then the third ones. The
    authors train a model of the client from scratch for every selection; here it is the one of its last round.

    Cost: a pass of each; 3 n b d multiplications for b chosen. Memory: n d numbers.
    """

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses candidates; see `aal.strategies.strategy.Strategy`."""
        from aal.strategies.clustering import k_means  # PyTorch: a check of the options need not wait for it
        from aal.strategies.distances import tensor_of

        check_both(pool, "logo")
        gradients = pool.embeddings * (1 - pool.probabilities.max(axis=1, keepdims=True))
        clusters = k_means(tensor_of(gradients), count, rng).numpy()
        return uncertain_of_each(clusters, Entropy().uncertainty(pool.probabilities_of(1)), count)


def uncertain_of_each(clusters: np.ndarray, uncertainty: np.ndarray, count: int) -> np.ndarray:
    """Chooses the most uncertain image of each cluster, then the second of each, and so on.

    Args:
        clusters: (n,) int, the cluster of each image.
        uncertainty: (n,); NaN ranks last.
        count: how many to choose, at most n.

    Returns:
        (count,) positions; of equally placed ones of their clusters, the more uncertain first.
    """
    descending = -np.where(np.isnan(uncertainty), -np.inf, uncertainty)
    order = np.lexsort((descending, clusters))  # cluster by cluster
    _, first = np.unique(clusters[order], return_index=True)
    sizes = np.diff(np.append(first, len(order)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(first, sizes)
    return np.lexsort((descending, place))[:count]
