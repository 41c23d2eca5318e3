"""What a network gives for images; no PyTorch is needed to hold it."""

from typing import NamedTuple, Self

import numpy as np


class Outputs(NamedTuple):
    """What one pass over images gives.

    Attributes:
        logits: (n, classes) float32.
        probabilities: (n, classes) float32.
        embeddings: (n, d) float32, the input of the network's output layer; None where they were not asked for.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray | None

    def at(self, positions: np.ndarray) -> Self:
        """Returns what the pass gave for some of the images."""
        embeddings = None if self.embeddings is None else self.embeddings[positions]
        return type(self)(self.logits[positions], self.probabilities[positions], embeddings)
