"""What networks drawn by dropout disagree about: BALD for images by themselves, BatchBALD for a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from aal.config.registry import STRATEGIES
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool

CHUNK = 4096  # candidates whose probabilities of all passes are held at once

Passes = Annotated[int, Field(ge=2, le=1000)]


@STRATEGIES.register("bald", needs_dropout=True, models="first")
class Bald(ScoreStrategy):
    """Mutual information of label and weights, H[mean_k p_k] - mean_k H[p_k] (Houlsby et al., 2011; Gal et al., 2017).

    p_k are the probabilities of pass k, in which dropout draws a network (Gal et al., 2017, equation 6).

    Cost: `passes` passes, in the precision of the device, of which none is repeated in float32; memory of passes times
    classes numbers for 4,096 candidates at a time.

    Args:
        passes: networks drawn.
    """

    def __init__(self, passes: Passes = 20) -> None:
        self.passes = passes

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float32, in nats."""
        chunks = np.split(np.arange(len(pool)), range(CHUNK, len(pool), CHUNK))
        return np.concatenate(
            [mutual_information(pool.subset(chunk).monte_carlo_probabilities(self.passes)) for chunk in chunks]
        )


def mutual_information(probabilities: np.ndarray) -> np.ndarray:
    """Returns H[mean_k p_k] - mean_k H[p_k] of probabilities (passes, n, classes), (n,)."""
    return _entropy(probabilities.mean(axis=0)) - np.mean([_entropy(one) for one in probabilities], axis=0)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy of each row, in nats."""
    return -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1))).sum(axis=-1)


@STRATEGIES.register("batchbald", needs_dropout=True, models="first")
class BatchBald:
    """Greedy maximum of the mutual information of a batch of labels and the weights (Kirsch et al., 2019, algorithm 1).

    The next one maximises I[y_1 ... y_b; w]. Given what is chosen, candidate i adds E_y H[sum_k w_k(y) p_k(i)] -
    mean_k H[p_k(i)], where y runs over the labels of those chosen and w_k(y) = p_k(y) / sum_j p_j(y). All y count while
    there are at most `samples` of them; then as many are drawn, the same number of each pass (section 3.2). H is
    concave, so the mean of w over some y, instead of each, bounds the first term from above: candidates are looked at
    in the order of the bound that is made of one mean a network, until it falls below the best that was found.

    Cost: `passes` passes; for each one chosen n passes^2 classes multiplications for the bound, and samples passes
    classes for each candidate looked at: mostly few. Memory: passes n classes numbers.

    Args:
        passes: networks drawn.
        samples: labels of the batch, at most, over which the expectation is taken.
    """

    uses_embeddings = False

    def __init__(self, passes: Passes = 20, samples: Annotated[int, Field(ge=2, le=10**6)] = 1000) -> None:
        self.passes, self.samples = passes, samples

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Returns (count,) positions in the order of choice."""
        import torch  # a check of the options need not wait for it

        from aal.strategies.distances import tensor_of
        from aal.strategies.joint_entropy import Joint, largest_gain

        drawn = tensor_of(pool.monte_carlo_probabilities(self.passes).reshape(self.passes * len(pool), -1))
        probabilities = drawn.view(self.passes, len(pool), -1)
        own = sum(torch.special.entr(one).sum(dim=1) for one in probabilities) / self.passes
        joint, chosen = Joint(self.passes, self.samples, rng), []
        while True:
            chosen.append(largest_gain(joint, probabilities, own))
            if len(chosen) == count:
                return np.array(chosen, np.int64)
            joint.add(probabilities[:, chosen[-1]])
            own[chosen[-1]] = torch.inf
