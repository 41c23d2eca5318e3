"""Distances between rows of numbers, in blocks, so that memory does not grow with the number of rows.

|a - b|^2 = |a|^2 + |b|^2 - 2 ab: what counts is the time of matrix products, on as many threads as PyTorch has here.
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

FAR = 100.0  # times the mean squared distance from the mean, beyond which the mean is taken off
BLOCK = 2**22  # numbers that one block of a matrix of distances holds: 16 MiB


def tensor_of(table: np.ndarray) -> Tensor:
    """Returns a table (n, d) as a float32 tensor on the same memory.

    Where a network is broken, it is a copy in which rows with numbers that are not finite are zeros.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that mapped files cannot be written to; nobody does
        rows = torch.from_numpy(np.ascontiguousarray(table, np.float32))
    broken = ~torch.isfinite(squared_norms(rows))
    return rows.masked_fill(broken[:, None], 0) if broken.any() else rows


def finite_rows(table: np.ndarray) -> np.ndarray:
    """Returns whether the squared length of each row of a table (n, d) is a float32 number, (n,) bool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        rows = torch.from_numpy(np.ascontiguousarray(table, np.float32))
    return torch.isfinite(squared_norms(rows)).numpy()


def broken_last(
    table: np.ndarray, count: int, rng: np.random.RandomState, choose: Callable[[Tensor, int], np.ndarray]
) -> np.ndarray:
    """Chooses among the rows of a table that are numbers; the others, of a broken network, are taken at random at last.

    Args:
        table: (n, d).
        count: how many, at most n.
        rng: draws among the others.
        choose: returns positions, from the rows (m, d) float32 that are numbers and how many.

    Returns:
        (count,) int64 positions in the order of choice.
    """
    is_whole = finite_rows(table)
    whole, broken = np.flatnonzero(is_whole), np.flatnonzero(~is_whole)
    rows = tensor_of(table if not len(broken) else table[whole])
    chosen = whole[choose(rows, min(count, len(whole)))] if len(whole) else whole
    return np.concatenate([chosen, rng.permutation(broken)[: count - len(chosen)]])


def centred(rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Returns rows (n, d), and others (m, d), less the mean of the rows where that is far longer than they are wide.

    Distances stay as they are; without it, float32 loses them in the squares of a common offset.
    """
    if len(rows) == 0:
        return (rows, *others)
    mean = rows.mean(dim=0)
    length = float((mean * mean).sum())
    width = float(squared_norms(rows).mean()) - length  # below zero where rounding is all that is left of it
    if length <= FAR * max(width, 0.0):
        return (rows, *others)
    return tuple(part - mean for part in (rows, *others))


def squared_norms(rows: Tensor) -> Tensor:
    """Returns the squared length of each row, (n,) float32."""
    return torch.linalg.vector_norm(rows, dim=1).square_()


def blocks(size: int, width: int) -> Iterator[slice]:
    """Returns slices of `size` rows, so that `width` numbers a row are no more than a block."""
    step = max(1, BLOCK // max(1, width))
    return (slice(start, start + step) for start in range(0, size, step))


def lower_to(nearest: Tensor, rows: Tensor, norms: Tensor, centres: Tensor) -> None:
    """Lowers squared distances to those of new centres, where they are nearer.

    Args:
        nearest: (n,), in place.
        rows: (n, d).
        norms: (n,) of the rows, squared.
        centres: (k, d); may be none.
    """
    if len(centres) == 0:
        return
    squares = squared_norms(centres)
    for part in blocks(len(rows), len(centres)):
        found = torch.addmm(squares, rows[part], centres.T, alpha=-2).amin(dim=1).add_(norms[part])
        torch.minimum(nearest[part], found.clamp_(min=0), out=nearest[part])


def drawn(weights: Tensor, rng: np.random.RandomState) -> int:
    """Draws a position in proportion to weights (n,) >= 0, as `rng.choice(n, p=weights / sum)` does."""
    upto = weights.to(torch.float64).cumsum(0)
    return min(int(torch.searchsorted(upto, rng.random_sample() * float(upto[-1]), right=True)), len(weights) - 1)
