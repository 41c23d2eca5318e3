"""Clusters of embeddings: k-means for many rows, average linkage for few."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from aal.strategies.distances import blocks, drawn, lower_to, squared_norms

SAMPLED_ROWS = 10  # for each cluster: on which the centres are looked for
SAMPLE_ROUNDS, ROUNDS = 20, 3  # of the sample and of all rows: later ones move few rows
LARGEST = 12_000  # rows whose distances to each other are held at once, 550 MiB; more are halved first


def k_means(rows: Tensor, number: int, rng: np.random.RandomState) -> Tensor:
    """Groups rows by k-means, from k-means++ on a sample.

    Cost: 4 n k d multiplications, and up to 210 k^2 d for the sample. Memory: two numbers a row, the sample and blocks.

    Args:
        rows: (n, d) float32.
        number: of clusters, at most n; fewer are found where rows are equal.
        rng: draws the sample and the first centres.

    Returns:
        (n,) int64: the cluster of each row.
    """
    size = SAMPLED_ROWS * number
    sample = rows if size >= len(rows) else rows[torch.from_numpy(rng.choice(len(rows), size, replace=False))]
    centres = _first_centres(sample, number, rng)
    for part, rounds in ((sample, SAMPLE_ROUNDS), (rows, ROUNDS)):
        labels = torch.full((len(part),), -1)
        for _ in range(rounds):
            last, labels = labels, _assign(part, centres)
            if torch.equal(labels, last):
                break
            centres = _means(part, labels, centres)
    return _assign(rows, centres)


def _first_centres(rows: Tensor, number: int, rng: np.random.RandomState) -> Tensor:
    """k-means++: each next centre is a row drawn in proportion to its squared distance from those before."""
    norms, nearest = squared_norms(rows), torch.full((len(rows),), torch.inf)
    chosen = [int(rng.randint(len(rows)))]
    while len(chosen) < number:
        lower_to(nearest, rows, norms, rows[chosen[-1:]])
        nearest[chosen[-1]] = 0
        chosen.append(drawn(nearest, rng))
    return rows[chosen]


def _assign(rows: Tensor, centres: Tensor) -> Tensor:
    """Returns the nearest centre of each row, (n,) int64."""
    squares = squared_norms(centres)
    return torch.cat(
        [
            torch.addmm(squares, rows[part], centres.T, alpha=-2).argmin(dim=1)
            for part in blocks(len(rows), len(centres))
        ]
    )


def _means(rows: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Returns the mean of each cluster; an empty one keeps its centre."""
    sums = torch.zeros_like(centres).index_add_(0, labels, rows)
    counts = torch.bincount(labels, minlength=len(centres))[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), centres)


def average_linkage(rows: Tensor, number: int) -> np.ndarray:
    """Groups rows bottom-up by the mean Euclidean distance of two clusters, until so many clusters are left.

    More than `LARGEST` rows are first halved, again and again, at the median of the number that varies most; each part
    gets its share of the clusters.

    Cost: n^2 d multiplications and about 10 n^2 additions; memory of n^2 numbers; both for n = `LARGEST` at most.

    Args:
        rows: (n, d) float32.
        number: of clusters, from 1 to n; where rows are halved, each part has one at least.

    Returns:
        (n,) int64: the cluster of each row, from 0.
    """
    if len(rows) <= LARGEST:
        return _cut(*_merges(_distance_table(rows)), number)
    half = len(rows) // 2
    order = rows[:, int(rows.var(dim=0).argmax())].argsort(stable=True)
    share = min(half, max(1, round(number * half / len(rows))))
    labels = np.empty(len(rows), np.int64)
    labels[order[:half]] = average_linkage(rows[order[:half]], share)
    offset = labels[order[:half]].max() + 1
    labels[order[half:]] = offset + average_linkage(rows[order[half:]], max(1, number - share))
    return labels


def _distance_table(rows: Tensor) -> np.ndarray:
    """Returns the distances of all rows, (n, n) float32, infinite on the diagonal."""
    found = np.empty((len(rows), len(rows)), np.float32)  # NumPy asks for huge pages, which columns are faster on
    norms, table = squared_norms(rows), torch.from_numpy(found)
    for part in blocks(len(rows), len(rows)):
        block = torch.addmm(norms[part.start :], rows[part], rows[part.start :].T, alpha=-2)
        block.add_(norms[part, None]).clamp_(min=0).sqrt_()
        table[part, part.start :] = block
        table[part.start :, part] = block.T  # the same distances, which no product needs to give again
    table.fill_diagonal_(torch.inf)
    return found


def _merges(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges all rows, nearest neighbours of each other first, by the nearest-neighbour chain (Murtagh, 1983).

    Args:
        table: (n, n) float32, symmetric, infinite on the diagonal; overwritten.

    Returns:
        (n - 1, 2) rows that stand for the two clusters of a merge, and (n - 1,) the mean distance of these.
    """
    number = len(table)
    sizes, chain = np.ones(number, np.float32), list[int]()
    gone_ones = np.zeros(number, np.float32)  # infinite for clusters that were merged into another one
    names = np.arange(number)  # the row that stands for each cluster of the table
    pairs, heights = np.empty((number - 1, 2), np.int64), np.empty(number - 1, np.float32)
    for merge in range(number - 1):
        if 2 * (number - merge) <= len(table):
            left = np.flatnonzero(gone_ones == 0)
            table, chain = _compact(table, left), np.searchsorted(left, chain).tolist()
            names, sizes, gone_ones = names[left], sizes[left], gone_ones[left]
        if not chain:
            chain.append(int(sizes.argmax()))
        while True:
            row = table[chain[-1]] + gone_ones
            nearest = int(row.argmin())
            if len(chain) > 1 and row[nearest] >= row[chain[-2]]:
                break
            chain.append(nearest)
        gone, kept = chain.pop(), chain.pop()
        pairs[merge], heights[merge] = (names[gone], names[kept]), table[gone, kept]
        both = sizes[gone] + sizes[kept]
        mean = table[gone] * (sizes[gone] / both)
        mean += table[kept] * (sizes[kept] / both)  # infinite on the diagonal still
        table[kept] = table[:, kept] = mean
        gone_ones[gone], sizes[kept], sizes[gone] = np.inf, both, 0
    return pairs, heights


def _compact(table: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Moves some rows of a table, and the same columns, to its start; returns that part, on the same memory."""
    for place, row in enumerate(left):
        table[place, : len(left)] = table[row, left]
    return table[: len(left), : len(left)]


def _cut(pairs: np.ndarray, heights: np.ndarray, number: int) -> np.ndarray:
    """Returns the clusters that the nearest merges make, when `number` clusters are left."""
    total = len(heights) + 1
    first, second = pairs[np.argsort(heights, kind="stable")[: total - number]].T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(total, total))
    return connected_components(graph, directed=False)[1].astype(np.int64)
