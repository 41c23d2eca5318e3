"""What a strategy is, and the base of those that score each image by itself and take the top."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from aal.config.errors import UserError
from aal.config.registry import STRATEGIES

if TYPE_CHECKING:
    from aal.strategies.pool import CandidatePool

# Share of all ranks. On CIFAR-10, of 100 ids chosen from 4,500 with bf16 scores, 86 to 98 are those of float32 scores;
# with the 1 % of the ranks on both sides of the cut scored again in float32, 98 to 100 are (docs/performance.md).
REACH = 0.01


class Strategy(Protocol):
    """A way to choose. Register a class with `@STRATEGIES.register("name")`, or name it as `package.module:Class`.

    The typed parameters of its constructor are its options (`query_strategy_options`). One registered with
    `scores=False` uses no output of a model; a simulated run then counts no time for scoring. A strategy may have two
    more attributes: `versions`, how many of the newest versions of each model it selects with, and `passes`, how often
    each of them goes over the candidates; both are 1 otherwise.
    """

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses candidates.

        Args:
            pool: the candidates and all that can be asked about them.
            count: how many are wanted, at least 1 and fewer than `len(pool)`: where all are wanted, no strategy is
                asked.
            rng: all randomness is to come from here, so that a run repeats itself.

        Returns:
            (count,) int, different positions in the pool, from 0.
        """
        ...


class ScoreStrategy(abc.ABC):
    """Base of the strategies that give each image a number, independent of the other candidates, and take the largest.

    Attributes:
        uses_embeddings: whether `score` takes `pool.embeddings`, which are kept from the pass only where asked for.
    """

    uses_embeddings = False

    @abc.abstractmethod
    def score(self, pool: CandidatePool) -> np.ndarray:
        """Returns (n,) float: the larger, the more useful the label; NaN ranks last."""

    def select(self, pool: CandidatePool, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Chooses the top of the scores; what bfloat16 may have put on the wrong side is scored again in float32."""
        scores = _checked_scores(self.score(pool), len(pool))
        if pool.is_coarse and count < len(pool):
            close = near_the_cut(scores, count)
            scores[close] = _checked_scores(self.score(pool.subset(close, precision="float32")), len(close))
        return top_k(scores, count, rng)


def _checked_scores(scores: np.ndarray, candidates: int) -> np.ndarray:
    """Returns scores as a new array (n,) float; raises `ValueError` where they are something else."""
    found = np.asarray(scores)
    if found.shape != (candidates,) or found.dtype.kind not in "fiub":
        raise ValueError(
            f"score must return {candidates} numbers, one for each candidate, not {found.dtype} of shape {found.shape}"
        )
    return found.astype(np.float32 if found.dtype != np.float64 else np.float64)


def top_k(scores: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Returns the positions of the `count` largest scores, in ascending order; ties are broken at random.

    A score that is not a number ranks below all others: a broken output is no reason to pay for a label, and where
    all are broken the choice is random.

    Args:
        scores: (n,) float.
        count: how many; all where there are fewer.
        rng: breaks the ties.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    if count >= len(scores):
        return np.arange(len(scores))
    limit = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > limit)
    ties = np.flatnonzero(scores == limit)
    drawn = rng.permutation(ties)[: count - len(above)]
    return np.sort(np.concatenate([above, drawn]))


def near_the_cut(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions whose rank is so near to `count` that coarse scores may put them on its wrong side."""
    reach = math.ceil(REACH * len(scores))
    return np.argsort(-scores)[max(0, count - reach) : count + reach]


def versions_of(strategy: Strategy) -> int:
    """Returns how many of the newest versions of each model a strategy selects with."""
    return int(getattr(strategy, "versions", 1))


def passes_of(strategy: Strategy) -> int:
    """Returns how often each model goes over the candidates."""
    return int(getattr(strategy, "passes", 1))


def build_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Builds a strategy by its name.

    Raises:
        UserError: there is no such strategy, or an option is wrong.
    """
    strategy = STRATEGIES.load(name)
    return strategy(**STRATEGIES.checked_options(name, options, given=()))


def select_checked(
    strategy: Strategy, name: str, pool: CandidatePool, count: int, rng: np.random.RandomState
) -> np.ndarray:
    """Lets a strategy choose, and checks what it returns.

    Returns:
        (min(count, n),) int64 positions.

    Raises:
        UserError: these are no positions, or not as many, or one of them comes twice or is out of range.
    """
    if count >= len(pool):
        return np.arange(len(pool))
    try:
        chosen = np.asarray(strategy.select(pool, count, rng))
    except (ValueError, TypeError, IndexError) as error:  # what a wrong shape or signature raises
        raise UserError(f"query_strategy: {name}: {type(error).__name__}: {error}") from error
    problem = None
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        problem = f"must return a list of whole numbers, not {chosen.dtype} of shape {chosen.shape}"
    elif len(chosen) != count:
        problem = f"returned {len(chosen)} positions where {count} were asked for"
    elif len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(pool)):
        problem = f"returned a position outside 0 to {len(pool) - 1}"
    elif len(np.unique(chosen)) != len(chosen):
        problem = "returned a position more than once"
    if problem:
        raise UserError(f"query_strategy: {name}: select {problem}")
    return chosen.astype(np.int64)
