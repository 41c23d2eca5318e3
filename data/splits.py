"""Which examples are for testing, for validation, labelled at the start, and in each worker's shard."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from aal.app.data.arrays import UNKNOWN, ImageSet
from aal.app.data.clients import client_ids
from aal.app.data.clusters import cluster
from aal.config.errors import UserError
from aal.config.registry import IMAGE_SETS
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.partition import HeldOut, Partition
from aal.storage.atomic import write_whole
from aal.storage.run_reader import RunReader

DEFAULT_TEST_SHARE = 0.2
LARGEST_SHARE_HELD_OUT = 1 / 5  # of the labels that people are to give
STATISTICS_ROWS = 10_000
CHUNK = 500


Choose = Callable[[np.ndarray, int], np.ndarray]  # from ids, and how many, to some of them


def split(image_set: ImageSet, settings: Settings, shard_num: int, choose: Choose | None = None) -> Partition:
    """Returns the partition that the seed stands for, on any machine and with any version.

    Test, validation and initial ids are drawn from the examples whose labels are known, and do not depend on the
    number of shards. All others are dealt among the shards, those without a label too.

    Args:
        image_set: the prepared set.
        settings: of the run; the seed, initial_size, val_size, split_strategy and test_share matter.
        shard_num: into how many shards the unlabelled pool is divided.
        choose: the initial ids among those that validation leaves; None for at random.

    Raises:
        UserError: the sizes do not fit the set, or too few labels are known.
    """
    is_test, rest, unknown = divide(image_set, settings)
    _check_sizes(len(rest), len(unknown), shard_num, settings)
    mixed = _random(settings, "pools").permutation(rest)
    validation, initial, pool = np.split(mixed, np.cumsum([settings.val_size, settings.initial_size]))
    if choose is not None and settings.initial_size:
        left = mixed[settings.val_size :]
        initial = choose(np.sort(left), settings.initial_size)
        pool = left[~np.isin(left, initial)]
    if len(unknown):
        pool = _random(settings, "unlabelled").permutation(np.concatenate([pool, unknown]))
    if settings.federated is not None:
        return _of_clients(image_set, settings, shard_num, np.flatnonzero(is_test), mixed, unknown)
    if settings.split_strategy == "RS":
        shards = [np.sort(shard) for shard in np.array_split(pool, shard_num)]
    else:
        pool = np.sort(pool)
        clusters = cluster(image_set.images, pool, shard_num, _random(settings, "clusters"))
        shards = [pool[clusters == number] for number in range(shard_num)]
    held_out = HeldOut() if is_test.any() or len(validation) else _held_out(pool, settings)
    is_trainable = np.zeros(len(is_test), bool)
    is_trainable[initial] = is_trainable[pool] = True
    is_trainable[held_out.ids] = False
    mean, std = _statistics(image_set.images, np.flatnonzero(is_trainable))
    test, validation, initial = np.flatnonzero(is_test), np.sort(validation), np.sort(initial)
    return Partition(test, validation, initial, shards, mean, std, held_out=held_out)


def _held_out(pool: np.ndarray, settings: Settings) -> HeldOut:
    """Returns which ids of the shards are for testing and validation, where people are to label all images."""
    if not settings.people.label:
        return HeldOut()
    number = min(settings.people.held_out, int(LARGEST_SHARE_HELD_OUT * min(len(pool), settings.budget)))
    drawn = _random(settings, "held out").permutation(np.sort(pool))[:number]
    return HeldOut(np.sort(drawn[::2]), np.sort(drawn[1::2]))


def _of_clients(
    image_set: ImageSet, settings: Settings, clients: int, test: np.ndarray, known: np.ndarray, unknown: np.ndarray
) -> Partition:
    """Returns the partition of a federated run: all images are some client's own, and so are the initial labels.

    Args:
        image_set: the prepared set.
        settings: of the run.
        clients: how many there are.
        test: ids of the test set.
        known: ids of known label, mixed.
        unknown: ids of unknown label.
    """
    own, initial = client_ids(image_set, settings, clients, known), []
    total = sum(map(len, own))
    for ids in own:  # a share of each client's size, rounded up, as published
        initial.append(ids[: -(-len(ids) * settings.initial_size // total)])
    dealt = np.array_split(_random(settings, "unlabelled").permutation(unknown), clients)
    shards = [
        np.sort(np.concatenate([ids[len(first) :], more])) for ids, first, more in zip(own, initial, dealt, strict=True)
    ]
    first = np.concatenate(initial)
    owner, order = np.repeat(np.arange(clients), [len(ids) for ids in initial]), np.argsort(first)
    mean, std = _statistics(image_set.images, np.sort(np.concatenate([known, unknown])))
    return Partition(test, np.empty(0, np.int64), first[order], shards, mean, std, owner[order])


def divide(image_set: ImageSet, settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns whether each example is for testing, (N,) bool, and the other ids of known and of unknown label.

    Raises:
        UserError: too few labels are known.
    """
    is_known = np.asarray(image_set.labels) != UNKNOWN
    is_test = _test(image_set, settings, is_known)
    rest, unknown = np.flatnonzero(~is_test & is_known), np.flatnonzero(~is_test & ~is_known)
    if settings.imbalance is None:
        return is_test, rest, unknown
    if len(unknown):
        raise UserError(f"imbalance: the labels of {len(unknown)} images are unknown; leave it out")
    return is_test, _long_tailed(rest, image_set, settings.imbalance, _random(settings, "imbalance")), unknown


def _long_tailed(ids: np.ndarray, image_set: ImageSet, ratio: float, random: np.random.RandomState) -> np.ndarray:
    """Keeps n * ratio^(-c / (C - 1)) images of class c, where the largest class has n (Cui et al., 2019, section 5.1).

    Classes are in the order of their labels, the last one is the rarest; where one has fewer, it keeps all.
    """
    labels, classes = np.asarray(image_set.labels)[ids], len(image_set.classes)
    most = np.bincount(labels, minlength=classes).max()
    kept = []
    for label in range(classes):
        size = max(1, int(most * ratio ** (-label / max(1, classes - 1)) + 0.5))
        kept.append(random.permutation(ids[labels == label])[:size])
    return np.sort(np.concatenate(kept))


def share_for_testing(data_type: str, chosen: float | None = None) -> float:
    """Returns the share of a set without own test images that is kept for testing.

    Args:
        data_type: as in the settings.
        chosen: the setting `test_share`.
    """
    part = IMAGE_SETS.facts(data_type).get("test_share")
    return part[0] / part[1] if part else chosen or DEFAULT_TEST_SHARE


def _random(settings: Settings, purpose: str) -> np.random.RandomState:
    # NumPy promises RandomState's stream for good, and that of Generator not even to its next version.
    return np.random.RandomState(derive(settings.seed, "split", purpose))


def _test(image_set: ImageSet, settings: Settings, is_known: np.ndarray) -> np.ndarray:
    """Whether each example is for testing, (N,) bool."""
    is_test = np.zeros(len(is_known), bool)
    if image_set.test is None:
        known = np.flatnonzero(is_known)
        drawn = _random(settings, "test").permutation(known)
        share = share_for_testing(image_set.data_type, settings.test_share)
        is_test[drawn[: max(1, round(share * len(known)))]] = True
        return is_test
    if settings.test_share is not None:
        raise UserError(f"test_share: {image_set.data_type} has its own test set; leave it out")
    is_test[image_set.test] = True
    if unknown := int((is_test & ~is_known).sum()):
        raise UserError(
            f"data_type: {unknown} of the {len(image_set.test)} test images of {image_set.data_type} have no label; "
            "test images must be labelled"
        )
    return is_test


def _check_sizes(known: int, unknown: int, shard_num: int, settings: Settings) -> None:
    """Checks the sizes against the number of examples outside the test set, with and without a known label."""
    initial, validation = settings.initial_size, settings.val_size
    if initial + validation > known:
        images = f"labelled images (and {unknown} unlabelled ones)" if unknown else "images"
        raise UserError(
            f"initial_size + val_size: {initial} + {validation} is more than the {known} {images} outside the test "
            "set; make them smaller"
        )
    left = known + unknown - initial - validation
    if left < shard_num:
        raise UserError(
            f"worker_num: {left} unlabelled images cannot be shared among {shard_num} (of {known + unknown} outside "
            f"the test set, initial_size takes {initial} and val_size {validation}); make one of the three smaller"
        )


def _statistics(images: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) of at most 10,000 evenly spaced images, from exact counts of each pixel value."""
    rows = min(len(ids), STATISTICS_ROWS)
    chosen = ids[np.arange(rows) * len(ids) // rows]
    if images.dtype != np.uint8:
        features = images[chosen].reshape(rows, -1).astype(np.float64)
        deviation = features.std(axis=0)
        return features.mean(axis=0).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)
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
    """Writes a partition as .npz, whole or not at all."""
    buffer = io.BytesIO()
    arrays = {name: getattr(split, name) for name in ("test", "validation", "initial", "mean", "std")}
    arrays["members"] = np.concatenate(split.shards)
    arrays["sizes"] = np.array([len(shard) for shard in split.shards], np.int64)
    if split.initial_owner is not None:
        arrays["initial_owner"] = split.initial_owner
    arrays |= {f"held_out_{name}": ids for name, ids in split.held_out._asdict().items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


def load_split(path: Path) -> Partition:
    """Returns the partition that `save_split` wrote.

    Raises:
        UserError: there is none at `path`, or it is damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            shards = np.split(saved["members"], np.cumsum(saved["sizes"])[:-1])
            names = ("test", "validation", "initial", "mean", "std")
            owner = saved.get("initial_owner")
            held_out = HeldOut(*(saved.get(f"held_out_{name}", HeldOut().test) for name in HeldOut._fields))
            found = Partition(
                **{name: saved[name] for name in names}, shards=shards, initial_owner=owner, held_out=held_out
            )
            _check_once(found)
            return found
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds
        raise UserError(f"{path}: is no split of a run ({error})") from None


def _check_once(split: Partition) -> None:
    ids = np.concatenate([split.test, split.validation, split.initial, *split.shards])
    if len(ids) and (ids.min() < 0 or len(np.unique(ids)) < len(ids)):
        raise ValueError("an id is negative, or in two places")
    if split.initial_owner is not None and split.initial_owner.shape != split.initial.shape:
        raise ValueError("the clients are not those of the initial ids")


def split_again(
    run: Path,
    image_set: ImageSet,
    settings: Settings,
    shard_num: int,
    has_begun: bool,
    choose: Choose | None = None,
) -> Partition:
    """Returns the partition of a run that goes on; one that is missing, or not the run's, is made again from the seed.

    Args:
        run: the run directory, with the file that `save_split` wrote.
        image_set: the prepared set.
        settings: of the run.
        shard_num: into how many shards the unlabelled pool is divided.
        has_begun: whether the record of the run says where its examples are.
        choose: as for `split`.

    Raises:
        UserError: the record has them in other places than the seed stands for.
        OSError: the file cannot be written.
    """
    path, recorded = run / "split.npz", None
    if has_begun:
        with RunReader(run) as reader:
            recorded = reader.examples()
        with contextlib.suppress(UserError, IndexError):
            partition = load_split(path)
            if _examples(partition, image_set) == recorded:
                return partition
    partition = split(image_set, settings, shard_num, choose)
    if recorded is not None:  # `people.held_out` may be another by now
        ids = (np.array([row[0] for row in recorded if row[4] == name], np.int64) for name in HeldOut._fields)
        partition = replace(partition, held_out=HeldOut(*ids))
    if recorded is not None and _examples(partition, image_set) != recorded:
        raise UserError(f"{run / 'run.db'}: its table examples is not what the seed stands for; it is damaged")
    save_split(partition, path)
    return partition


def _examples(partition: Partition, image_set: ImageSet) -> list[tuple[int, str, int | None, int, str | None]]:
    return sorted((*row[:4], row[5]) for row in partition.rows(np.asarray(image_set.labels)))
