"""BADGE: a batch whose gradients are large and point into different directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("badge")
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

        rows, errors, norms = _gradients(pool)
        nearest, free = torch.full_like(norms, torch.inf), torch.ones(len(rows))

        def lower_to(row: Tensor, error: Tensor, norm: Tensor) -> None:
            products = (errors @ error).mul_(rows @ row)
            torch.minimum(nearest, products.mul_(-2).add_(norms).add_(norm).clamp_(min=0), out=nearest)

        if len(pool.waiting):
            for other in zip(*_gradients(pool.waiting), strict=True):
                lower_to(*other)
        chosen = [drawn(nearest if nearest.any() else free, rng) if len(pool.waiting) else int(norms.argmax())]
        while True:
            last = chosen[-1]
            lower_to(rows[last], errors[last], norms[last])
            nearest[last] = free[last] = 0
            if len(chosen) == count:
                return np.array(chosen, np.int64)
            chosen.append(drawn(nearest if nearest.any() else free, rng))


def _gradients(pool: CandidatePool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the factors x (n, d) and p - e_y (n, classes) of the gradients, and their squared lengths (n,)."""
    import torch

    from aal.strategies.distances import squared_norms, tensor_of

    rows, errors = tensor_of(pool.embeddings), tensor_of(pool.probabilities).clone()
    errors[torch.arange(len(errors)), errors.argmax(dim=1)] -= 1
    return rows, errors, squared_norms(errors).mul_(squared_norms(rows))
