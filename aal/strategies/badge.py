"""BADGE: a batch whose gradients are large and point into different directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("badge", models="first", counts_waiting=True)
class Badge:
    """k-means++ on the gradients of the output layer for the predicted class (Ash et al., 2020, algorithm 1).

    The gradient of candidate i is g_i = (p_i - e_y) x_i^T, with p_i its probabilities, e_y the unit vector of the
    predicted class, x_i its embedding. The first one chosen has the largest |g|, as in the authors' code; each further
    one is drawn in proportion to its squared distance from the nearest of those chosen. Under `count_waiting` those of
    other batches come before the first, which is then drawn like the others. The g, classes times d numbers a
    candidate, are never made: <g_i, g_j> = <p_i - e_y, p_j - e_z> <x_i, x_j>.

    Cost: a pass; a product of the embeddings with a vector for each one chosen, count n (d + classes) multiplications.
    Memory: a copy of the probabilities, and some n numbers.
    """

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) positions in the order of choice."""
        import torch  # a check of the options need not wait for it

        from aal.strategies.distances import drawn

        rows, errors, norms, whole = _gradients(pool)
        left = torch.ones(len(rows))
        nearest, free = torch.full_like(norms, torch.inf).where(whole, 0), left.where(whole, 0)

        def draw() -> int:
            return drawn(next(weights for weights in (nearest, free, left) if weights.any()), rng)

        def lower_nearest(row: Tensor, error: Tensor, norm: Tensor) -> None:
            products = (errors @ error).mul_(rows @ row)
            torch.minimum(nearest, products.mul_(-2).add_(norms).add_(norm).clamp_(min=0), out=nearest)

        if len(pool.waiting):
            for *other, is_whole in zip(*_gradients(pool.waiting), strict=True):
                if is_whole:
                    lower_nearest(*other)
        chosen = [draw() if len(pool.waiting) else int(norms.argmax())]
        while True:
            last = chosen[-1]
            lower_nearest(rows[last], errors[last], norms[last])
            nearest[last] = free[last] = left[last] = 0
            if len(chosen) == count:
                return np.array(chosen, np.int64)
            chosen.append(draw())


def _gradients(pool: CandidatePool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the factors of the gradients, their squared lengths, and whether they are numbers.

    Returns:
        x (n, d), p - e_y (n, classes), (n,), and (n,) bool; where it is False, the others are zeros.
    """
    import torch

    from aal.strategies.distances import finite_rows, squared_norms, tensor_of

    rows, errors = tensor_of(pool.embeddings), tensor_of(pool.probabilities).clone()
    whole = torch.from_numpy(finite_rows(pool.embeddings) & finite_rows(pool.probabilities))
    errors[torch.arange(len(errors)), errors.argmax(dim=1)] -= 1
    errors[~whole] = 0
    return rows, errors, squared_norms(errors).mul_(squared_norms(rows)), whole
