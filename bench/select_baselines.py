"""What strategies are compared with: scikit-activeml's, or the authors' way, and the bare products that are needed."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge, CoreSet, vote_entropy
from skactiveml.pool._bald import batch_bald
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans
from torch import Tensor, nn

from bench.contenders import Baseline

CHUNK = 4096


def per_choice(query: Callable[[int], object], count: int, few: int = 2, more: int = 6) -> float:
    """Returns the seconds that `count` choices would take, from those that the later ones of `more` take each."""
    query(few)  # what a first call costs once
    times = []
    for number in (few, more):
        started_at = time.perf_counter()
        query(number)
        times.append(time.perf_counter() - started_at)
    return count * (times[1] - times[0]) / (more - few)


def coreset(embeddings: np.ndarray, labelled: int) -> Callable[[int], object]:
    """scikit-activeml's."""
    labels = _unknown(len(embeddings), labelled)
    return lambda number: CoreSet(random_state=0).query(embeddings, labels, batch_size=number)


def products(rows: Tensor, centres: Tensor) -> None:
    """All products of rows with centres, block by block."""
    for part in rows.split(CHUNK):
        part @ centres.T


def coreset_products(rows: Tensor, count: int, labelled: int) -> None:
    """The distances from what is labelled and from all that is chosen, as if that were known before."""
    products(rows[: len(rows) - labelled], rows[: count + labelled])


def badge(embeddings: np.ndarray, probabilities: np.ndarray, labelled: int) -> Callable[[int], object]:
    """scikit-activeml's, which makes the gradients."""
    labels = _unknown(len(embeddings), labelled)
    model = _Told(probabilities[: len(embeddings) - labelled], [*range(probabilities.shape[1])])
    return lambda number: Badge(random_state=0).query(embeddings, labels, model, fit_clf=False, batch_size=number)


def badge_products(rows: Tensor, count: int, labelled: int) -> None:
    """A product with each one chosen, which is drawn from the result of those before."""
    candidates = rows[: len(rows) - labelled]
    for one in rows[:count]:
        candidates @ one


def typiclust(embeddings: np.ndarray, candidates: int, count: int) -> list[int]:
    """The authors' code: scikit-learn's mini-batch k-means, and distances within each cluster."""
    number = min(len(embeddings) - candidates + count, 500)
    clusters = MiniBatchKMeans(number, batch_size=5000, random_state=0).fit_predict(embeddings)
    sizes, labels = np.bincount(clusters), clusters.copy()
    known = np.bincount(clusters[candidates:], minlength=len(sizes))
    order = [place for place in np.lexsort((-sizes, known)) if sizes[place] > 5]
    labels[candidates:] = -1
    chosen: list[int] = []
    for turn in range(count):
        members = np.flatnonzero(labels == order[turn % len(order)])
        if len(members):
            near = np.sort(cdist(embeddings[members], embeddings[members]), axis=1)[
                :, 1 : 1 + min(20, len(members) // 2)
            ]
            chosen.append(int(members[near.mean(axis=1).argmin()]))
            labels[chosen[-1]] = -1
    return chosen


def typiclust_products(rows: Tensor, count: int, labelled: int) -> None:
    """Distances from 500 centres: of a sample in twenty rounds of k-means, of all rows in three, and at the end."""
    for part in [*[rows[:5000]] * 20, *[rows] * 4]:
        products(part, rows[:500])


def cluster_margin(embeddings: np.ndarray, probabilities: np.ndarray, candidates: int, count: int) -> np.ndarray:
    """The smallest margins, scikit-learn's clusters of them, one of each in turn."""
    top = np.sort(probabilities[:candidates], axis=1)
    near = np.argsort(top[:, -1] - top[:, -2])[: 10 * count]
    clusters = AgglomerativeClustering(count, linkage="average").fit_predict(embeddings[near])
    order = np.argsort(np.bincount(clusters), kind="stable")
    return near[[np.flatnonzero(clusters == one)[0] for one in order]]


def cluster_margin_products(rows: Tensor, count: int, labelled: int) -> None:
    """The distances of ten times as many rows from each other."""
    products(rows[: 10 * count], rows[: 10 * count])


def batchbald(passes: np.ndarray, samples: int) -> Callable[[int], object]:
    """scikit-activeml's."""
    exact = passes.astype(np.float64)
    return lambda number: batch_bald(exact.copy(), number, n_MC_samples=samples, random_state=0)


def batchbald_products(passes: Tensor, samples: int, count: int) -> None:
    """The probabilities of all candidates' labels, given each of the sampled labels of those chosen."""
    posterior = torch.rand(samples, len(passes))
    for _ in range(count):
        for part in passes.split(CHUNK // 32, dim=1):
            posterior @ part.reshape(len(passes), -1)


def bald(plain: Baseline, ids: np.ndarray, passes: int, count: int) -> np.ndarray:
    """A plain loop with dropout switched on, and scikit-activeml's score."""
    model, whole = plain.model, nn.Module.train

    def train_dropout_alone(mode: bool = True) -> nn.Module:
        whole(model, False)
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.train()
        return model

    model.train = train_dropout_alone  # what the loop calls before it scores
    try:
        found = np.stack([plain.probabilities(ids).numpy() for _ in range(passes)])
    finally:
        del model.train
    return np.argsort(batch_bald(found.astype(np.float64), 1)[0])[-count:]


def committee(plain: Baseline, ids: np.ndarray, members: int, count: int) -> np.ndarray:
    """A plain loop for each member, and scikit-activeml's vote entropy."""
    votes = np.stack([plain.probabilities(ids).argmax(dim=1).numpy() for _ in range(members)], axis=1)
    return np.argsort(vote_entropy(votes, np.arange(10)))[-count:]


def _unknown(number: int, labelled: int) -> np.ndarray:
    """Returns labels as scikit-activeml reads them: those of the candidates, which come first, are NaN."""
    labels = np.zeros(number)
    labels[: number - labelled] = np.nan
    return labels


class _Told(SkactivemlClassifier):
    """A classifier whose probabilities are given."""

    def __init__(self, probabilities: np.ndarray, classes: list[int]) -> None:
        super().__init__(classes=classes)
        self.probabilities = probabilities

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "_Told":  # noqa: N803 - scikit-learn's names
        """Returns itself."""
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Returns what is given."""
        return self.probabilities
