"""The label that most gave."""

import numpy as np

from aal.config.registry import AGGREGATIONS


@AGGREGATIONS.register("majority")
class Majority:
    """The most frequent label, of several the one that was given first; how sure it is: the share that gave it.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def decide(self, annotators: list[int], labels: list[int]) -> tuple[int, float]:
        """Returns the label of an image and how sure it is; see `Aggregation`."""
        if len(labels) == 1:
            return labels[0], 1.0
        label = max(labels, key=labels.count)  # the first of the largest
        return label, labels.count(label) / len(labels)

    def fit(self, items: np.ndarray, annotators: np.ndarray, labels: np.ndarray) -> None:
        """Learns nothing: an image's own answers decide."""
