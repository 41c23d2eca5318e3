"""The greedy core set: images that leave no other one far from all that is labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

    from aal.strategies.pool import CandidatePool

CACHED_BYTES = 2**21  # of embeddings among which the next ones are looked for: what a core's cache holds


@STRATEGIES.register("coreset", scores="embeddings", models="first", counts_waiting=True)
class CoreSet:
    """k-centre greedy: again and again the candidate farthest from L and from those chosen (Sener and Savarese, 2018).

    Algorithm 1: u = argmax_i min_j |x_i - x_j| over the embeddings x, j among what is labelled or chosen, by others too
    under `count_waiting`. Where nothing is labelled or chosen, the first one is random.

    Cost: a pass over the candidates and one over L; (m + count) n d multiplications. A distance only shrinks when
    another image is chosen, so the next ones are looked for among the farthest alone, until those left aside may be
    farther; these then see all that was chosen meanwhile in one matrix product. Memory: n numbers and two blocks of
    16 MiB.
    """

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) positions in the order of choice."""
        import torch

        from aal.strategies.distances import broken_last, centred, tensor_of  # PyTorch: a check need not wait for it

        centres = tensor_of(pool.embeddings[:0])
        if len(pool.labelled_ids):
            centres = tensor_of(pool.labelled_embeddings)
        if len(pool.waiting):
            centres = torch.cat([centres, tensor_of(pool.waiting.embeddings)])

        def choose(rows: Tensor, number: int) -> np.ndarray:
            shifted = centred(rows, centres)
            return farthest_first(shifted[0], shifted[1], number, rng)

        return broken_last(pool.embeddings, count, rng, choose)


def farthest_first(rows: Tensor, centres: Tensor, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Chooses rows that are far from centres and from one another.

    Args:
        rows: (n, d) float32.
        centres: (m, d) float32; where there are none, the first row is random.
        count: how many, at most n.
        rng: draws that first one.

    Returns:
        (count,) int64 positions in the order of choice.
    """
    import torch

    from aal.strategies.distances import lower_to, squared_norms

    norms = squared_norms(rows)
    nearest = torch.full((len(rows),), torch.inf)
    lower_to(nearest, rows, norms, centres)
    chosen: list[int] = []
    if len(centres) == 0:
        chosen.append(int(rng.randint(len(rows))))
    size = min(len(rows) - 1, max(256, CACHED_BYTES // (4 * max(1, rows.shape[1]))))
    new = chosen
    while len(chosen) < count:
        lower_to(nearest, rows, norms, rows[new])
        nearest[new] = -torch.inf  # which no distance raises again
        limits, places = nearest.topk(size + 1)
        places = places[:-1]
        new = _farthest_of(places, rows[places], norms[places], limits, count - len(chosen))
        chosen = chosen + new
    return np.array(chosen, np.int64)


def _farthest_of(places: Tensor, rows: Tensor, norms: Tensor, limits: Tensor, count: int) -> list[int]:
    """Chooses among the farthest rows, at least one, while none of those that are left aside can be farther.

    Args:
        places: (k,) of these rows among all.
        rows: (k, d).
        norms: (k,) of them, squared.
        limits: (k + 1,) squared distances from what was chosen before: of these rows, and of the next one.
        count: how many at most.
    """
    import torch

    chosen: list[int] = []
    nearest, aside = limits[:-1].clone(), float(limits[-1])
    while len(chosen) < count:
        farthest, place = torch.max(nearest, dim=0)
        if (chosen and float(farthest) < aside) or float(farthest) == -torch.inf:
            break
        chosen.append(int(places[place]))
        distances = torch.addmv(norms, rows, rows[place], alpha=-2).add_(norms[place]).clamp_(min=0)
        torch.minimum(nearest, distances, out=nearest)
        nearest[place] = -torch.inf
    return chosen
