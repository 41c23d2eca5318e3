"""Which of a client's two models chooses: its own, the server's, or both together as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from aal.config.errors import UserError
from aal.training.outputs import Outputs

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool, Scorer

ChosenBy: TypeAlias = Literal["local", "global", "both"]


class Ensemble:
    """Several models of the same classes as one; see `aal.strategies.pool.Scorer`.

    Its probabilities are the mean of theirs, its logits the logarithms of these. Its embeddings are theirs side by
    side, so that squared distances add up.

    Args:
        members: at least one.
    """

    def __init__(self, members: Sequence[Scorer]) -> None:
        self._members = members

    @property
    def is_coarse(self) -> bool:
        """Whether precision "auto" is bfloat16 on the device of a member."""
        return any(one.is_coarse for one in self._members)

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Scores images in one pass of each member."""
        found = [one.outputs(ids, precision, with_embeddings) for one in self._members]
        probabilities = np.mean([one.probabilities for one in found], axis=0)
        embeddings = [one.embeddings for one in found if one.embeddings is not None]
        together = np.concatenate(embeddings, axis=1) if embeddings else None
        return Outputs(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)), probabilities, together)

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Returns the mean of the members' passes, (passes, n, classes) float32."""
        return np.mean([one.monte_carlo_probabilities(ids, passes, seed) for one in self._members], axis=0)

    def votes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the votes of all snapshots of all members, (snapshots, n)."""
        return np.concatenate([one.votes(ids) for one in self._members])


def models_of(models: Sequence[Scorer], chosen_by: ChosenBy, compares_both: bool) -> Sequence[Scorer]:
    """Returns the models that a client's pool of candidates is to have.

    Args:
        models: the client's own and the server's, in this order.
        chosen_by: which of them are to choose.
        compares_both: whether the strategy is registered as one that compares them (`local_and_global`), which then
            gets both, whatever `chosen_by` is.
    """
    if compares_both:
        return models
    return [Ensemble(models)] if chosen_by == "both" else [models[0 if chosen_by == "local" else 1]]


def check_both(pool: CandidatePool, name: str) -> None:
    """Checks that a pool holds the models of a client and of the server.

    Raises:
        UserError: it does not.
    """
    if pool.model_count != 2:
        raise UserError(f"query_strategy: {name} compares a client's model with the server's; it needs mode federated")
