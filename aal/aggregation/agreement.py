"""How far people agree beyond chance."""

from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """How two annotators agree.

    Attributes:
        first: annotator.
        second: annotator.
        images: that both answered.
        same: share of these that both gave the same label.
        kappa: Cohen's kappa; NaN where both gave one and the same label to all.
    """

    first: int
    second: int
    images: int
    same: float
    kappa: float


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement of two annotators beyond chance (Cohen, "A coefficient of agreement for nominal scales", 1960).

    Args:
        first: (n,) int64 labels that one gave.
        second: (n,) int64 labels that the other gave to the same images.

    Returns:
        1 for the same labels, 0 for what chance gives; NaN where chance gives the same labels always.
    """
    classes = int(max(first.max(), second.max())) + 1
    shares = np.bincount(first * classes + second, minlength=classes**2).reshape(classes, classes) / len(first)
    observed, expected = float(np.trace(shares)), float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def krippendorff_alpha(items: np.ndarray, labels: np.ndarray) -> float:
    """Agreement of any number of annotators (Krippendorff, "Computing Krippendorff's alpha-reliability", 2011, part C).

    Args:
        items: (n,) int64 image of each answer; those with one answer do not count.
        labels: (n,) int64 of each answer, nominal.

    Returns:
        1 for full agreement, 0 for what chance gives; NaN where no two answers can be compared, or all are the same.
    """
    if not len(items):
        return float("nan")
    _, units = np.unique(items, return_inverse=True)
    classes = int(labels.max()) + 1
    counts = np.bincount(units * classes + labels, minlength=(units.max() + 1) * classes).reshape(-1, classes)
    counts = counts[counts.sum(axis=1) > 1]
    answers = counts.sum(axis=1)
    totals, number = counts.sum(axis=0), int(counts.sum())
    differ = float(((answers**2 - (counts**2).sum(axis=1)) / (answers - 1)).sum()) if number else 0.0
    by_chance = float(number**2 - (totals**2).sum()) / max(1, number - 1)
    return 1 - differ / by_chance if by_chance else float("nan")


def pairs(items: np.ndarray, annotators: np.ndarray, labels: np.ndarray) -> list[Pair]:
    """Returns how each two annotators agree that answered the same images.

    Args:
        items: (n,) int64 image of each answer.
        annotators: (n,) int64 who gave each answer, at most one an image.
        labels: (n,) int64 of each answer.
    """
    own = {one: (items[annotators == one], labels[annotators == one]) for one in np.unique(annotators).tolist()}
    found, people = [], list(own)
    for place, first in enumerate(people):
        for second in people[place + 1 :]:
            shared, mine, theirs = np.intersect1d(own[first][0], own[second][0], return_indices=True)
            if len(shared):
                one, other = own[first][1][mine], own[second][1][theirs]
                same = float((one == other).mean())
                found.append(Pair(first, second, len(shared), same, cohen_kappa(one, other)))
    return found
