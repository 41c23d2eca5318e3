"""Clusters of images by their pixels, the same on every machine.

scikit-learn's KMeans sums floats, in an order that depends on threads and BLAS, and near ties then fall differently.
Here features and centres are whole numbers below 256, so every sum stays a whole number that float64 holds exactly.
"""

from collections.abc import Iterator

import numpy as np

SIDE = 8  # pixels a side of the reduced images
ROUNDS = 30  # shards need no perfect clusters, and later rounds move few images
CHUNK = 4096


def cluster(images: np.ndarray, ids: np.ndarray, number: int, random: np.random.RandomState) -> np.ndarray:
    """Groups images by k-means on their reduced pixels.

    Args:
        images: (N, H, W, C) uint8, or features (N, 1, 1, d) of floats, whose range is divided into 256 steps.
        ids: (n,) rows to group, n >= number.
        number: of clusters, each of which gets at least one image.
        random: draws the first centres.

    Returns:
        (n,) int64: the cluster of each id.
    """
    points = _features(images, ids)
    centres = _first_centres(points, number, random)
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        last, (labels, sums, counts) = labels, _assign(points, centres)
        if np.array_equal(labels, last):
            break
        centres = (2 * sums + counts[:, None]) // (2 * counts[:, None])
    return labels


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))


def _features(images: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Averages areas down to at most 8 x 8 whole numbers a channel: (n, d) uint8."""
    if images.dtype != np.uint8:
        return _in_steps(images, ids)
    height, width, channels = images.shape[1:]
    tops = np.unique(np.arange(SIDE) * height // SIDE)
    lefts = np.unique(np.arange(SIDE) * width // SIDE)
    areas = np.diff([*tops, height])[:, None, None] * np.diff([*lefts, width])[:, None]
    features = np.empty((len(ids), len(tops) * len(lefts) * channels), np.uint8)
    for chunk in _chunks(len(ids)):
        rows = np.add.reduceat(images[ids[chunk]], tops, axis=1, dtype=np.uint32)
        sums = np.add.reduceat(rows, lefts, axis=2)
        features[chunk] = (sums // areas).reshape(len(sums), -1)
    return features


def _in_steps(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rounds floats to 256 steps between the least and the greatest of all: (n, d) uint8."""
    ends = np.array([(part.min(), part.max()) for part in (rows[ids[chunk]] for chunk in _chunks(len(ids)))], float)
    least, greatest = ends[:, 0].min(), ends[:, 1].max()
    scale = 255 / max(greatest - least, np.finfo(float).tiny)
    steps = np.empty((len(ids), rows.shape[3]), np.uint8)
    for chunk in _chunks(len(ids)):
        steps[chunk] = np.rint((rows[ids[chunk]].reshape(-1, rows.shape[3]).astype(float) - least) * scale)
    return steps


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (n, k), whole numbers in float64."""
    points, centres = points.astype(np.float64), centres.astype(np.float64)
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return squares - 2 * (points @ centres.T)


def _first_centres(points: np.ndarray, number: int, random: np.random.RandomState) -> np.ndarray:
    """k-means++: each next centre is a point drawn in proportion to its squared distance from those before."""
    centres = points[[random.randint(len(points))]].astype(np.int64)
    nearest = np.full(len(points), np.iinfo(np.int64).max)
    while len(centres) < number:
        for chunk in _chunks(len(points)):
            distances = _distances(points[chunk], centres[-1:])[:, 0].astype(np.int64)
            nearest[chunk] = np.minimum(nearest[chunk], distances)
        upto = np.cumsum(nearest)
        # Without any distance left, every point equals some centre, and _assign fills the empty clusters.
        draw = random.randint(max(upto[-1], 1), dtype=np.int64)
        pick = min(int(np.searchsorted(upto, draw, side="right")), len(points) - 1)
        centres = np.vstack([centres, points[[pick]]])
    return centres


def _assign(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives each point to its nearest centre: labels (n,), then sums (k, d) and counts (k,) of the clusters."""
    labels, distances = np.empty(len(points), np.int64), np.empty(len(points))
    for chunk in _chunks(len(points)):
        table = _distances(points[chunk], centres)
        labels[chunk], distances[chunk] = table.argmin(axis=1), table.min(axis=1)
    _fill_empty(labels, distances, len(centres))
    counts = np.bincount(labels)
    by_cluster = points[np.argsort(labels, kind="stable")]
    sums = np.add.reduceat(by_cluster, np.cumsum(counts) - counts, axis=0, dtype=np.int64)
    return labels, sums, counts


def _fill_empty(labels: np.ndarray, distances: np.ndarray, number: int) -> None:
    """Gives each empty cluster, in place, the farthest point of a cluster that can spare one."""
    counts = np.bincount(labels, minlength=number)
    for empty in np.flatnonzero(counts == 0):
        farthest = int(np.where(counts[labels] > 1, distances, -1).argmax())
        counts[labels[farthest]] -= 1
        labels[farthest], counts[empty] = empty, 1
