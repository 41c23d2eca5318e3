"""Which images to label first, before there is any model: chosen by a strategy on features instead of at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aal.config.seeding import derive

if TYPE_CHECKING:
    from collections.abc import Callable

    from aal.app.data import ImageSet
    from aal.config.settings import Settings


def chooser(settings: Settings, image_set: ImageSet) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """Returns what chooses the initial ids of a run for `split`; None where they are drawn at random.

    Args:
        settings: of the run; `initial_strategy` and the seed matter.
        image_set: with its features.
    """
    if settings.initial_strategy == "random" or image_set.features is None:
        return None
    from aal.strategies.pool import CandidatePool
    from aal.strategies.strategy import build_strategy, select_checked

    name, seed, features = settings.initial_strategy, derive(settings.seed, "initial"), image_set.features.rows
    strategy = build_strategy(name, {})
    nothing = np.empty(0, np.int64)

    def choose(ids: np.ndarray, count: int) -> np.ndarray:
        pool = CandidatePool(ids, [], lambda: (nothing, nothing), seed=seed, features=features)
        return ids[select_checked(strategy, name, pool, count, np.random.RandomState(seed))]

    return choose
