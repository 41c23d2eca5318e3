"""Known images that are shown among the others, to see how often each annotator is right."""

import collections
import random

import numpy as np

from aal.coordination.query_pool import NO_QUERY


class Checks:
    """Which known images an annotator is shown. Answers to them are recorded and never become labels.

    Args:
        share: of the draws that show one, from 0 to 1.
        ids: (n,) of examples whose labels are known.
        seed: of what is shown when.
    """

    def __init__(self, share: float, ids: np.ndarray, seed: int) -> None:
        self._share = share
        self._ids = ids.tolist()
        self._random = random.Random(seed)
        self._shown: dict[int, set[int]] = collections.defaultdict(set)  # to each annotator
        self._open: set[tuple[int, int]] = set()  # (id, annotator) that are to be answered

    def draw(self, annotator: int) -> int:
        """Returns, now and then, a known id that this annotator has not been shown, or `NO_QUERY`."""
        if self._random.random() >= self._share:
            return NO_QUERY
        left = [example for example in self._ids if example not in self._shown[annotator]]
        if not left:
            return NO_QUERY
        example = self._random.choice(left)
        self.show(example, annotator)
        return example

    def show(self, example: int, annotator: int) -> None:
        """Notes that an annotator is shown a known id."""
        self._shown[annotator].add(example)
        self._open.add((example, annotator))

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Lets another annotator answer who has not been shown this id; whether there is such an id."""
        if (example, annotator) not in self._open or example in self._shown[other]:
            return False
        self._open.remove((example, annotator))
        self._shown[annotator].discard(example)
        self.show(example, other)
        return True

    def settle(self, example: int, annotator: int) -> bool:
        """Takes in an answer; whether this annotator was shown the id and had not answered."""
        if (example, annotator) not in self._open:
            return False
        self._open.remove((example, annotator))
        return True
