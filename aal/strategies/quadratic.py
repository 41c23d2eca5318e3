"""The quadratic program of `diam_qp`: disagreement against redundancy."""

from collections.abc import Sequence

import numpy as np
import osqp
from scipy import sparse

NEIGHBOURS = 0.01  # share of the candidates


def neighbour_kernel(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (n, n) float64, positive semidefinite: over the targets, who is among whose nearest 1 % (Euclidean).

    Args:
        embeddings: (n, d) of each target, d its own.
    """
    size = len(embeddings[0])
    counts = np.zeros((size, size))
    neighbours = min(max(1, round(NEIGHBOURS * size)), size - 1)
    for one in embeddings if neighbours else ():
        squares = (one * one).sum(axis=1)
        distances = squares - 2 * one @ one.T  # less a constant of the row
        np.fill_diagonal(distances, np.inf)
        nearest = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours].copy()
        del distances
        np.put_along_axis(counts, nearest, np.take_along_axis(counts, nearest, axis=1) + 1, axis=1)
    values, vectors = np.linalg.eigh((counts + counts.T) / 2)
    return (vectors * values.clip(0)) @ vectors.T


def choose(kernel: np.ndarray, worth: np.ndarray, count: int) -> np.ndarray:
    """Returns the `count` positions with the largest s of min s'Ks / 2 - worth's, 1's = count, 0 <= s <= 1.

    Args:
        kernel: (n, n) positive semidefinite.
        worth: (n,) of each candidate.
        count: at most n.
    """
    size = len(worth)
    rows = sparse.vstack([np.ones((1, size)), sparse.eye(size)], format="csc")
    lower, upper = np.append(count, np.zeros(size)), np.append(count, np.ones(size))
    solver = osqp.OSQP()
    problem = sparse.triu(kernel, format="csc")
    solver.setup(problem, -worth.astype(float), rows, lower, upper, verbose=False, polishing=False)
    return np.argsort(-solver.solve(raise_error=False).x, kind="stable")[:count]
