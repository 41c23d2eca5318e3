"""The labels of a batch under networks drawn at random, as BatchBALD needs them."""

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**21  # numbers of an intermediate result: 8 MiB
FIRST_LOOK = 16  # candidates whose gain is computed first
LEAST = 1e-30  # of a probability whose logarithm is taken


class Joint:
    """The labels y of the images chosen so far, and how probable each network finds them.

    While there are at most `samples` configurations, all are kept, with their probabilities; then each network draws
    its share of them.

    Args:
        networks: that were drawn.
        samples: configurations at most.
        rng: draws them.
    """

    def __init__(self, networks: int, samples: int, rng: np.random.RandomState) -> None:
        self._samples, self._rng = samples, rng
        self._chosen: list[Tensor] = []
        self._logs = torch.zeros(1, networks)  # of the probability of each configuration by each network
        self._is_drawn = False

    @property
    def posterior(self) -> Tensor:
        """How probable each network is given each configuration, (configurations, networks)."""
        return self._logs.softmax(dim=1)

    @property
    def weights(self) -> Tensor:
        """The probability of each configuration, or its share of those that were drawn, (configurations,)."""
        if self._is_drawn:
            return torch.full((len(self._logs),), 1 / len(self._logs))
        return self._logs.exp().mean(dim=1)

    def add(self, probabilities: Tensor) -> None:
        """Adds the label of an image, whose probabilities by each network are (networks, classes)."""
        self._chosen.append(probabilities)
        networks, classes = probabilities.shape
        if not self._is_drawn and len(self._logs) * classes <= self._samples:
            self._logs = (self._logs[:, None] + probabilities.T.clamp(min=LEAST).log()).reshape(-1, networks)
            return
        new = [probabilities]
        if not self._is_drawn:
            share = max(1, self._samples // networks)
            self._logs, self._is_drawn, new = torch.zeros(share * networks, networks), True, self._chosen
        for one in new:
            self._logs += self._drawn_labels(one)

    def _drawn_labels(self, probabilities: Tensor) -> Tensor:
        """Lets each network draw a label for each of its configurations; returns their log-probabilities by each."""
        networks = len(probabilities)
        upto = probabilities.cumsum(dim=1).contiguous()
        uniform = torch.from_numpy(self._rng.random_sample((networks, len(self._logs) // networks))).float()
        labels = torch.searchsorted(upto, uniform * upto[:, -1:], right=True).clamp_(max=probabilities.shape[1] - 1)
        return probabilities.clamp(min=LEAST).log().T[labels.flatten()]


def largest_gain(joint: Joint, probabilities: Tensor, own: Tensor) -> int:
    """Returns the candidate whose label says most about the networks, given the labels in `joint`.

    Args:
        joint: what is chosen.
        probabilities: (networks, n, classes).
        own: (n,) mean entropy of the candidate under each network by itself; infinite for those that are chosen.
    """
    posterior, weights = joint.posterior, joint.weights
    bounds = expected_entropy(*_grouped(posterior, weights), probabilities) - own
    order = bounds.argsort(descending=True, stable=True)
    best, gain, done, size = int(order[0]), -torch.inf, 0, FIRST_LOOK
    most = max(1, BLOCK // (len(posterior) * probabilities.shape[2]))
    while done < len(order) and float(bounds[order[done]]) > gain:
        places = order[done : done + size]
        gains = expected_entropy(posterior, weights, probabilities[:, places]) - own[places]
        if float(gains.max()) > gain:
            gain, best = float(gains.max()), int(places[gains.argmax()])
        done, size = done + size, min(2 * size, most)
    return best


def _grouped(posterior: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the mean of the configurations that speak most for the same network: at most one row a network."""
    networks = posterior.shape[1]
    best, sums = posterior.argmax(dim=1), torch.zeros(networks, networks)
    mass = torch.zeros(networks).index_add_(0, best, weights)
    sums.index_add_(0, best, weights[:, None] * posterior)
    return sums[mass > 0] / mass[mass > 0, None], mass[mass > 0]


def expected_entropy(posterior: Tensor, weights: Tensor, probabilities: Tensor) -> Tensor:
    """Returns the mean over configurations of the entropy of a label, in nats, (n,).

    Args:
        posterior: (configurations, networks), how probable each network is.
        weights: (configurations,) of the mean.
        probabilities: (networks, n, classes) of the label.
    """
    networks, number, classes = probabilities.shape
    found = torch.empty(number)
    step = max(1, BLOCK // (len(posterior) * classes))
    for start in range(0, number, step):
        part = probabilities[:, start : start + step]
        mixed = posterior @ part.reshape(networks, -1)
        found[start : start + step] = (weights @ torch.special.entr(mixed)).view(-1, classes).sum(dim=1)
    return found
