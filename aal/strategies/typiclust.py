"""TypiClust: typical images of clusters in which nothing is labelled; for few labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("typiclust", scores="embeddings", models="first", counts_waiting=True)
class TypiClust:
    """The most typical candidate of each of the largest clusters without labels (Hacohen et al., 2022, algorithm 1).

    L and the candidates are grouped by k-means into min(m + count, `most_clusters`) clusters. These are gone through in
    ascending order of their labels, then in descending order of size, round by round; each time the candidate is taken
    with the largest typicality, 1 / (mean distance from its nearest neighbours), among the candidates left in its
    cluster (equation 1). The neighbours are at most half of these. As in the authors' code, clusters of up to
    `smallest_cluster` images are left out; here they come after the others where one of these would be used up.

    Cost: a pass over the candidates and one over L; 4 (n + m) k d multiplications for k clusters, up to 210 k^2 d for
    their first centres, and the distances within the clusters. Memory: a copy of the embeddings where something is
    labelled, three numbers an image, blocks.

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
        from aal.strategies.distances import broken_last, centred, tensor_of

        others = [tensor_of(pool.labelled_embeddings)] if len(pool.labelled_ids) else []
        if len(pool.waiting):  # counts as labelled
            others.append(tensor_of(pool.waiting.embeddings))

        def choose(candidates: Tensor, number: int) -> np.ndarray:
            (rows,) = centred(torch.cat([candidates, *others]) if others else candidates)
            clusters = len(rows) - len(candidates) + number
            labels = k_means(rows, min(len(rows), clusters, self.most_clusters), rng).numpy()
            return self._typical(rows, labels, len(candidates), number, rng)

        return broken_last(pool.embeddings, count, rng, choose)

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
        order = np.lexsort((-sizes, labels))
        left = np.bincount(clusters[:candidates], minlength=len(sizes))  # candidates of each cluster
        large, small = (
            order[is_large]
            for is_large in (sizes[order] > self.smallest_cluster, sizes[order] <= self.smallest_cluster)
        )
        picks = _picks(left[large], count)
        if not picks.any() or (picks == left[large]).any():  # a large one is to give its last image
            large = np.concatenate([large, small])
            picks = _picks(left[large], count)
        members = [np.flatnonzero(clusters[:candidates] == place) for place in large]
        typical, rounds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part, number in zip(members, picks.tolist(), strict=True):
            typical.append(part[_most_typical(rows[part], self.neighbours, number)])
            rounds.append(np.arange(number))
        chosen = np.concatenate(typical)[np.argsort(np.concatenate(rounds), kind="stable")]
        others = np.setdiff1d(np.arange(candidates), chosen)
        return np.concatenate([chosen, rng.permutation(others)[: count - len(chosen)]])


def _picks(sizes: np.ndarray, count: int) -> np.ndarray:
    """Returns how many are taken from each cluster, (clusters,), one of each in turn, until there are enough."""
    picks = np.zeros(len(sizes), np.int64)
    while (left := min(count, int(sizes.sum())) - int(picks.sum())) > 0:
        picks[np.flatnonzero(picks < sizes)[:left]] += 1
    return picks


def _most_typical(rows: Tensor, neighbours: int, count: int) -> np.ndarray:
    """Takes rows whose nearest neighbours are nearest in the mean, each among those left.

    Args:
        rows: (n, d) of a cluster.
        neighbours: that count, at most; half of the rows left, where these are fewer.
        count: how many to take, at most n.

    Returns:
        (count,) positions in the order of choice.
    """
    left, chosen = np.arange(len(rows)), np.empty(0, np.int64)
    while len(chosen) < count:
        number = min(count - len(chosen), neighbours)  # so that what is kept of a row does not grow with the count
        distances, places = _nearest(rows[left], neighbours + number - 1)
        taken = np.empty(0, np.int64)
        for _ in range(number):
            others = np.setdiff1d(np.arange(len(left)), taken)
            width = min(neighbours, len(others) // 2)
            best = others[distances[others, :width].mean(axis=1).argmin()] if width else others[0]
            taken = np.append(taken, best)
            distances, places = _without(best, distances, places)
        chosen, left = np.append(chosen, left[taken]), np.delete(left, taken)
    return chosen


def _nearest(rows: Tensor, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of each row (n, d) from its nearest others, (n, number) ascending, and their positions."""
    import torch

    from aal.strategies.distances import blocks, squared_norms

    norms, found = squared_norms(rows), []
    for part in blocks(len(rows), len(rows)):
        squares = torch.addmm(norms, rows[part], rows.T, alpha=-2).add_(norms[part, None])
        squares.diagonal(part.start).fill_(torch.inf)
        found.append(squares.topk(min(number, len(rows) - 1), largest=False))
    distances = torch.cat([one.values for one in found]).clamp_(min=0).sqrt_()
    return distances.numpy(), torch.cat([one.indices for one in found]).numpy()


def _without(gone: int, distances: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drops a row from the nearest ones (n, k) of each, and the last one where it is not among them: (n, k - 1)."""
    kept = places != gone
    kept[kept.all(axis=1), -1:] = False
    shape = len(places), max(0, places.shape[1] - 1)
    return distances[kept].reshape(shape), places[kept].reshape(shape)
