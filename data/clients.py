"""Which images are whose in a federated run."""

import inspect

import numpy as np

from aal.app.data.arrays import ImageSet
from aal.app.data.partitions import divide_among
from aal.config.federated import FederatedSettings
from aal.config.registry import PARTITIONS
from aal.config.seeding import derive
from aal.config.settings import Settings


def client_ids(image_set: ImageSet, settings: Settings, clients: int, known: np.ndarray) -> list[np.ndarray]:
    """Returns the ids of each client, at least one, in the order in which they were given.

    Args:
        image_set: the prepared set.
        settings: of the run; `federated.partition` says how they are divided.
        clients: how many there are.
        known: (n,) ids of known label, mixed.

    Raises:
        UserError: the partition cannot divide these images.
    """
    rules = settings.federated or FederatedSettings()
    random = np.random.RandomState(derive(settings.seed, "split", "clients"))
    parameters = inspect.signature(PARTITIONS.load(rules.partition)).parameters
    options = {key: getattr(rules, key) for key in ("alpha", "classes_per_client") if key in parameters}
    owners = divide_among(clients, np.asarray(image_set.labels)[known], random, rules.partition, options)
    return [known[owners == client] for client in range(clients)]
