"""How much a batch repeats itself, and what others have chosen: the cosine of an embedding to its nearest neighbour."""

import numpy as np

from aal.coordination.messages import Redundancy

CHUNK = 1024


def redundancy_of(batch: np.ndarray, waiting: np.ndarray) -> Redundancy:
    """Measures a batch.

    Args:
        batch: (b, d) float32, embeddings of the batch.
        waiting: (w, d) float32, of what is chosen and not answered yet.
    """
    own, others = _directions(batch), _directions(waiting)
    within = _nearest(own, own, is_same=True) if len(own) > 1 else None
    return Redundancy(len(others), within, _nearest(own, others) if len(own) and len(others) else None)


def _directions(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _nearest(rows: np.ndarray, others: np.ndarray, is_same: bool = False) -> float:
    """Returns the mean over rows of the largest cosine to another one."""
    best = []
    for start in range(0, len(rows), CHUNK):
        cosines = rows[start : start + CHUNK] @ others.T
        if is_same:
            places = np.arange(len(cosines))
            cosines[places, start + places] = -np.inf
        best.append(cosines.max(axis=1))
    return float(np.concatenate(best).mean(dtype=np.float64))
