"""Uncertainty from full class probabilities. All take float32 (count, classes) and give float32 (count,)."""

import numpy as np


def entropy(count: int, probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the predicted distribution, -sum_y p_y ln p_y (Holub et al., 2008); 0 ln 0 is 0."""
    safe = np.where(probabilities > 0, probabilities, np.float32(1))
    return np.where(
        np.isnan(probabilities).any(axis=1), np.float32(np.nan), -(probabilities * np.log(safe)).sum(axis=1)
    )


def least_confidence(count: int, probabilities: np.ndarray) -> np.ndarray:
    """One minus the largest probability (Li and Sethi, 2006)."""
    return 1 - probabilities.max(axis=1)


def margin(count: int, probabilities: np.ndarray) -> np.ndarray:
    """Minus the gap between the two largest probabilities (Balcan et al., 2007); 0 where there is one class."""
    if probabilities.shape[1] < 2:
        return np.zeros(count, np.float32)
    top = np.partition(probabilities, -2, axis=1)
    return top[:, -2] - top[:, -1]
