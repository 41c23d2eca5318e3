"""Which examples are for testing, for validation, labelled at the start, and in each worker's shard."""

import io
from pathlib import Path

import numpy as np

from aal.app.data.arrays import ImageSet
from aal.app.data.clusters import cluster
from aal.config.errors import UserError
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.partition import Partition
from aal.storage.atomic import write_whole

TEST_SHARES = {"mini-imagenet": 1 / 6}  # 10,000 of 60,000
DEFAULT_TEST_SHARE = 0.2
STATISTICS_ROWS = 10_000
CHUNK = 500


def split(image_set: ImageSet, settings: Settings, shard_num: int) -> Partition:
    """Returns the split that the seed stands for, on any machine and with any version.

    Test, validation and initial ids do not depend on the workers. In mode sync there is one single shard.

    Raises:
        UserError: the sizes do not fit the set.
    """
    test, rest = _test_and_rest(image_set, settings)
    _check_sizes(len(rest), shard_num, settings)
    mixed = _random(settings, "pools").permutation(rest)
    validation, initial, pool = np.split(mixed, np.cumsum([settings.val_size, settings.initial_size]))
    if settings.split_strategy == "RS":
        shards = [np.sort(shard) for shard in np.array_split(pool, shard_num)]
    else:
        pool = np.sort(pool)
        clusters = cluster(image_set.images, pool, shard_num, _random(settings, "clusters"))
        shards = [pool[clusters == number] for number in range(shard_num)]
    mean, std = _statistics(image_set.images, rest)
    return Partition(test, np.sort(validation), np.sort(initial), shards, mean, std)


def _random(settings: Settings, purpose: str) -> np.random.RandomState:
    # NumPy promises RandomState's stream for good, and that of Generator not even to its next version.
    return np.random.RandomState(derive(settings.seed, "split", purpose))


def _test_and_rest(image_set: ImageSet, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    number = len(image_set.labels)
    is_test = np.zeros(number, bool)
    if image_set.test_rows:
        is_test[slice(*image_set.test_rows)] = True
    else:
        share = TEST_SHARES.get(image_set.data_type, settings.test_share or DEFAULT_TEST_SHARE)
        drawn = _random(settings, "test").permutation(number)
        is_test[drawn[: max(1, round(share * number))]] = True
    return np.flatnonzero(is_test).astype(np.int64), np.flatnonzero(~is_test).astype(np.int64)


def _check_sizes(number: int, shard_num: int, settings: Settings) -> None:
    initial, validation = settings.initial_size, settings.val_size
    left = number - initial - validation
    if left < 0:
        raise UserError(
            f"initial_size + val_size: {initial} + {validation} is more than the {number} images outside the test "
            "set; make them smaller"
        )
    if left < shard_num:
        raise UserError(
            f"worker_num: {left} unlabelled images cannot be shared among {shard_num} (of {number} outside the test "
            f"set, initial_size takes {initial} and val_size {validation}); make one of the three smaller"
        )


def _statistics(images: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) of at most 10,000 evenly spaced images, from exact counts of each pixel value."""
    rows = min(len(ids), STATISTICS_ROWS)
    chosen = ids[np.arange(rows) * len(ids) // rows]
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(chosen), CHUNK):
        pixels = images[chosen[start : start + CHUNK]].reshape(-1, channels)
        counts += [np.bincount(channel, minlength=256) for channel in pixels.T]
    values, number = np.arange(256), counts.sum(axis=1)
    mean = counts @ values / number
    variance = counts @ values**2 / number - mean**2
    std = np.maximum(np.sqrt(np.maximum(variance, 0)), 1)  # one colour alone has no deviation to divide by
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def save_split(split: Partition, path: Path) -> None:
    """Writes a split as .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        test=split.test,
        validation=split.validation,
        initial=split.initial,
        members=np.concatenate(split.shards),
        sizes=np.array([len(shard) for shard in split.shards], np.int64),
        mean=split.mean,
        std=split.std,
    )
    write_whole(path, buffer.getvalue())


def load_split(path: Path) -> Partition:
    """Returns the split that `save_split` wrote.

    Raises:
        UserError: there is none at `path`, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            shards = np.split(saved["members"], np.cumsum(saved["sizes"])[:-1])
            names = ("test", "validation", "initial", "mean", "std")
            return Partition(**{name: saved[name] for name in names}, shards=shards)
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds
        raise UserError(f"{path}: is no split of a run ({error})") from None
