"""Which worker uses which strategy."""

import numpy as np

from aal.config.seeding import derive
from aal.config.settings import Settings

RA_CHOICE = ("entropy", "least_confidence", "margin")  # paper, section 4.1


def assign(settings: Settings, workers: int) -> list[str]:
    """Returns the name of each worker's strategy: DA gives all the same, RA draws one of three for each."""
    if settings.query_strategy is not None:
        return [settings.query_strategy] * workers
    draws = np.random.RandomState(derive(settings.seed, "assignment")).randint(len(RA_CHOICE), size=workers)
    return [RA_CHOICE[draw] for draw in draws]
