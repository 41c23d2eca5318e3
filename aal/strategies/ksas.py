"""Knowledge-specialised sampling: what a client and the server see differently in the classes that the client knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax

from aal.config.registry import STRATEGIES
from aal.strategies.ensemble import check_both
from aal.strategies.strategy import ScoreStrategy

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool


@STRATEGIES.register("ksas", local_and_global=True)
class KSAS(ScoreStrategy):
    """The knowledge-specialised divergence of a client's model and the server's (Cao et al., 2023, equations 1 to 3).

    A pass of each in float32. Where the client has labels of one class only, or of none, the choice is random.
    """

    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float64, in nats."""
        check_both(pool, "ksas")
        exact = pool.subset(np.arange(len(pool)), precision="float32")
        return specialised_divergence(exact.logits_of(0), exact.logits_of(1), exact.class_counts())


def specialised_divergence(local: np.ndarray, server: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns D = (KL(Q || P) + KL(P || Q)) / 2 of each image, (n,) float64, in nats.

    P_y = n_y e^s_y / sum_c n_c e^s_c with s the logits of the client's model, Q_y the same with those of the server's.
    Both are 0 for a class without labels, which so has no share in the sum. What is summed is (Q_y - P_y) (ln Q_y -
    ln P_y).

    Args:
        local: (n, classes) logits s.
        server: (n, classes) logits.
        counts: (classes,) labels n_y of the client.
    """
    known = counts > 0
    if not known.any():
        return np.zeros(len(local))
    prior = np.log(counts[known])
    own, global_ = (log_softmax(logits[:, known].astype(np.float64) + prior, axis=1) for logits in (local, server))
    return ((np.exp(global_) - np.exp(own)) * (global_ - own)).sum(axis=1) / 2
