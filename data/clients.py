"""Which images are whose in a federated run."""

import numpy as np

from aal.app.data.arrays import ImageSet
from aal.config.settings import Settings


def client_ids(image_set: ImageSet, settings: Settings, clients: int, known: np.ndarray) -> list[np.ndarray]:
    """Returns the ids of each client, at least one, in the order in which they were given.

    Args:
        image_set: the prepared set.
        settings: of the run; `federated.partition` says how they are divided.
        clients: how many there are.
        known: (n,) ids of known label, mixed.
    """
    return np.array_split(known, clients)
