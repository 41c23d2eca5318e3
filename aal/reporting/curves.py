"""Arithmetic on learning curves: test accuracy against the number of labels."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean_by_labels(labels: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    """Returns the distinct label counts (u,), ascending, and the mean accuracy (u,) of the models with as many labels.

    Args:
        labels: (n,) label counts of the models, in any order.
        accuracy: (n,) of these models.
    """
    at, which = np.unique(labels, return_inverse=True)
    return at, np.bincount(which, accuracy) / np.bincount(which)


def at_labels(labels: Floats, accuracy: Floats, wanted: Floats) -> Floats:
    """Returns a curve's accuracy (w,) at label counts, by straight lines between its points.

    Args:
        labels: (n,) of the points, in any order; those with equally many count as one with their mean accuracy.
        accuracy: (n,) of these.
        wanted: (w,) label counts within those of the curve.

    Raises:
        ValueError: the curve does not reach as far.
    """
    at, mean = mean_by_labels(labels, accuracy)
    if wanted.min() < at[0] or wanted.max() > at[-1]:
        raise ValueError(f"a curve from {at[0]:g} to {at[-1]:g} labels says nothing of {wanted.tolist()}")
    return np.interp(wanted, at, mean)


def aubc(labels: Floats, accuracy: Floats) -> float:
    """Returns the area under the curve (n,) by trapezoids, over its span of labels; of one point, its accuracy."""
    at, mean = mean_by_labels(labels, accuracy)
    return float(np.trapezoid(mean, at) / np.ptp(at)) if at.size > 1 else float(mean[0])
