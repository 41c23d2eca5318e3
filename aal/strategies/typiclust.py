"""TypiClust: typical images of clusters in which nothing is labelled; for few labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("typiclust", scores="embeddings")
class TypiClust:
    """The most typical candidate of each of the largest clusters without labels (Hacohen et al., 2022, algorithm 1).

    L and the candidates are grouped by k-means into min(m + count, `most_clusters`) clusters. These are gone through in
    ascending order of their labels, then in descending order of size, round by round; each time the candidate is taken
    with the largest typicality, 1 / (mean distance from its nearest neighbours), among the candidates left in its
    cluster (equation 1). The neighbours are at most half of these. As in the authors' code, clusters of up to
    `smallest_cluster` images are left out, while there are others.

    Cost: a pass over the candidates and one over L; 3 (n + m) k d multiplications for k clusters, and the distances
    within the clusters. Memory: a copy of the embeddings where something is labelled, three numbers an image, blocks.

    Args:
        neighbours: whose distances count.
        most_clusters: at most, however many are labelled.
        smallest_cluster: images of a cluster that is too small.
    """

    def __init__(
        self,
        neighbours: Annotated[int, Field(ge=1)] = 20,
        most_clusters: Annotated[int, Field(ge=1)] = 500,
        smallest_cluster: Annotated[int, Field(ge=0)] = 5,
    ) -> None:
        self.neighbours, self.most_clusters, self.smallest_cluster = neighbours, most_clusters, smallest_cluster

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) positions in the order of choice."""
        import torch  # a check of the options need not wait for it

        from aal.strategies.clustering import k_means
        from aal.strategies.distances import tensor_of

        rows = [tensor_of(pool.embeddings)]
        if len(pool.labelled_ids):
            rows.append(tensor_of(pool.labelled_embeddings))
        if len(pool.waiting):  # counts as labelled
            rows.append(tensor_of(pool.waiting.embeddings))
        rows, labelled = torch.cat(rows) if len(rows) > 1 else rows[0], sum(map(len, rows[1:]))
        clusters = k_means(rows, min(len(rows), labelled + count, self.most_clusters), rng).numpy()
        return self._typical(rows, clusters, len(pool), count, rng)

    def _typical(
        self, rows: Tensor, clusters: np.ndarray, candidates: int, count: int, rng: np.random.RandomState
    ) -> np.ndarray:
        """Takes the typical ones of clusters.

        Args:
            rows: (n, d), the candidates first, then what is labelled.
            clusters: (n,) of these, from 0.
            candidates: how many are candidates.
            count: how many to take, at most so many.
            rng: draws, where the clusters that are not too small hold fewer.

        Returns:
            (count,) positions in the order of choice.
        """
        sizes = np.bincount(clusters)
        labels = np.bincount(clusters[candidates:], minlength=len(sizes))
        order = [place for place in np.lexsort((-sizes, labels)) if sizes[place] > self.smallest_cluster]
        left = [np.flatnonzero(clusters[:candidates] == place) for place in order]
        chosen: list[int] = []
        while len(chosen) < count and left:
            for place, members in enumerate(left):
                if len(members) and len(chosen) < count:
                    best = _most_typical(rows[members], min(self.neighbours, len(members) // 2))
                    chosen.append(int(members[best]))
                    left[place] = np.delete(members, best)
            left = [members for members in left if len(members)]
        others = np.setdiff1d(np.arange(candidates), chosen)
        return np.concatenate([np.array(chosen, np.int64), rng.permutation(others)[: count - len(chosen)]])


def _most_typical(rows: Tensor, neighbours: int) -> int:
    """Returns the row whose nearest neighbours are nearest in the mean."""
    import torch

    from aal.strategies.distances import blocks, squared_norms

    if neighbours == 0:
        return 0
    norms, best = squared_norms(rows), (torch.inf, 0)
    for part in blocks(len(rows), len(rows)):
        squares = torch.addmm(norms, rows[part], rows.T, alpha=-2).add_(norms[part, None])
        nearest = squares.topk(neighbours + 1, largest=False).values[:, 1:]  # the first is the row itself
        means = nearest.clamp_(min=0).sqrt_().mean(dim=1)
        found = means.min(dim=0)
        best = min(best, (float(found.values), part.start + int(found.indices)))
    return best[1]
