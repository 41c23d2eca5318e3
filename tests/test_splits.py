"""The splits: from the seed alone, every id once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from aal.app import data
from aal.app.data.clusters import _distances, _features, cluster
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.partition import Partition

ROOT = Path(__file__).resolve().parent.parent


def settings_with(data_type: str = "folder", **changes: Any) -> Settings:
    tree = {
        "data_type": data_type,
        "models": "cnn",
        "initial_size": 10,
        "val_size": 5,
        "server_train_threshold": 1,
        **changes,
    }
    return resolve(tree, "test")


def image_set(
    number: int, data_type: str = "folder", test_rows: tuple[int, int] | None = None, side: int = 12
) -> data.ImageSet:
    """Images that look random and are the same for ever: high bits of a linear congruence."""
    with np.errstate(over="ignore"):
        state = np.arange(number * side * side * 3, dtype=np.uint64) * np.uint64(6364136223846793005)
    images = (state >> np.uint64(56)).astype(np.uint8).reshape(number, side, side, 3)
    test = None if test_rows is None else np.arange(*test_rows)
    return data.ImageSet(Path(), data_type, images, np.arange(number) % 3, ("a", "b", "c"), test)


def split(images: data.ImageSet, settings: Settings) -> Partition:
    return data.split(images, settings, 1 if settings.mode == "sync" else settings.worker_num)


def digest(parts: Partition) -> str:
    whole = hashlib.blake2b(digest_size=8)
    for ids in (parts.test, parts.validation, parts.initial, *parts.shards):
        whole.update(ids.astype("<i8").tobytes() + b"|")
    whole.update(parts.mean.astype("<f4").tobytes() + parts.std.astype("<f4").tobytes())
    return whole.hexdigest()


def check_partition(parts: Partition, number: int) -> None:
    ids = [parts.test, parts.validation, parts.initial, *parts.shards]
    assert np.array_equal(np.sort(np.concatenate(ids)), np.arange(number))
    for part in ids:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()


@pytest.mark.unit
@hypothesis_settings(max_examples=150)
@given(
    initial=st.integers(1, 40),
    validation=st.integers(0, 40),
    workers=st.integers(1, 30),
    spare=st.integers(0, 60),
    seed=st.integers(0, 2**31 - 1),
    strategy=st.sampled_from(["RS", "DS"]),
    own_test=st.booleans(),
    mode=st.sampled_from(["async", "sync"]),
)
def test_a_split_holds_every_id_once(
    initial: int, validation: int, workers: int, spare: int, seed: int, strategy: str, own_test: bool, mode: str
) -> None:
    rest = initial + validation + workers + spare
    settings = settings_with(
        initial_size=initial, val_size=validation, worker_num=workers, seed=seed, split_strategy=strategy, mode=mode
    )
    number = rest + 7 if own_test else -(-rest * 5 // 4) + 1
    parts = split(image_set(number, test_rows=(1, 8) if own_test else None), settings)
    check_partition(parts, number)
    assert len(parts.validation) == validation and len(parts.initial) == initial
    assert len(parts.shards) == (1 if mode == "sync" else workers)
    sizes = [len(shard) for shard in parts.shards]
    assert min(sizes) >= 1
    if strategy == "RS":
        assert max(sizes) - min(sizes) <= 1
    if own_test:
        assert parts.test.tolist() == list(range(1, 8))


@pytest.mark.unit
@pytest.mark.parametrize(("strategy", "expected"), [("RS", "ea1ea088dbb39a4c"), ("DS", "afb0b459ee73f6cd")])
def test_a_seed_stands_for_the_same_split_for_ever(strategy: str, expected: str) -> None:
    parts = split(image_set(1000), settings_with(seed=7, worker_num=4, split_strategy=strategy))
    assert digest(parts) == expected


@pytest.mark.process
def test_clusters_do_not_depend_on_threads() -> None:
    code = (
        "import numpy as np; from aal.app.data.clusters import cluster; r = np.random.RandomState(3);"
        "x = r.randint(0, 256, (2000, 16, 16, 3)).astype(np.uint8);"
        "print(hash(cluster(x, np.arange(2000), 7, r).tobytes()))"
    )

    def run(threads: str) -> bytes:
        env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True).stdout

    assert run("1") == run("2")


@pytest.mark.unit
def test_the_seed_matters_and_the_workers_do_not_move_the_other_parts() -> None:
    images = image_set(300)
    one, two = (split(images, settings_with(seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one.test, two.test) and not np.array_equal(one.initial, two.initial)
    for changes in ({"worker_num": 3}, {"split_strategy": "DS"}, {"mode": "sync"}):
        other = split(images, settings_with(seed=1, **changes))
        assert digest(Partition(**{**vars(one), "shards": []})) == digest(Partition(**{**vars(other), "shards": []}))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("data_type", "share", "tested"),
    [("mini-imagenet", None, 100), ("folder", None, 120), ("digits", 0.5, 300), ("folder", 0.001, 1)],
)
def test_test_rows_are_drawn_by_share(data_type: str, share: float | None, tested: int) -> None:
    settings = settings_with(data_type, test_share=share)
    assert len(split(image_set(600, data_type), settings).test) == tested


@pytest.mark.unit
def test_parts_are_drawn_evenly() -> None:
    images = image_set(200, test_rows=(150, 200), side=2)
    seen = np.zeros((3, 150), int)
    for seed in range(400):
        parts = split(images, settings_with(seed=seed, initial_size=30, val_size=30, worker_num=3))
        for row, ids in zip(seen, (parts.initial, parts.validation, parts.shards[0]), strict=True):
            row[ids] += 1
    assert seen.min() > 40 and seen.max() < 130  # 80 expected, deviation 8


@pytest.mark.unit
def test_sizes_that_do_not_fit_are_reported() -> None:
    images = image_set(100, test_rows=(80, 100))
    with pytest.raises(UserError, match=r"initial_size \+ val_size: 60 \+ 30 is more than the 80 images outside"):
        split(images, settings_with(initial_size=60, val_size=30))
    with pytest.raises(UserError, match=r"worker_num: 5 unlabelled images cannot be shared among 6 \(of 80 .*75.* 0\)"):
        split(images, settings_with(initial_size=75, val_size=0, worker_num=6))
    with pytest.raises(UserError, match="0 unlabelled images"):
        split(images, settings_with(initial_size=75, val_size=5, mode="sync"))
    check_partition(split(images, settings_with(initial_size=75, val_size=0, worker_num=5)), 100)


@pytest.mark.unit
def test_a_budget_beyond_the_pool_is_no_error() -> None:
    settings = settings_with(worker_num=2, worker_query_num=1000, query_batch=1000)
    check_partition(split(image_set(60), settings), 60)


@pytest.mark.unit
@pytest.mark.parametrize("level", [0, 200])
def test_equal_images_still_fill_every_shard(level: int) -> None:
    images = image_set(100)
    images.images[:] = level
    parts = split(images, settings_with(worker_num=20, split_strategy="DS"))
    check_partition(parts, 100)
    assert len(parts.shards) == 20 and min(map(len, parts.shards)) >= 1
    assert np.allclose(parts.mean, level / 255) and np.allclose(parts.std, 1 / 255)


@pytest.mark.unit
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 31, 3), (84, 84, 3), (2, 5, 1)])
def test_clusters_find_groups_that_are_far_apart(shape: tuple[int, int, int]) -> None:
    random = np.random.RandomState(0)
    truth = np.arange(120) % 4
    images = (60 * truth[:, None, None, None] + random.randint(0, 20, (120, *shape))).astype(np.uint8)
    labels = cluster(images, np.arange(120), 4, random)
    assert len(set(zip(truth, labels, strict=True))) == 4


@pytest.mark.unit
def test_distances_are_exact_whole_numbers() -> None:
    random = np.random.RandomState(0)
    points = random.randint(0, 256, (50, 192)).astype(np.uint8)
    points[0], points[1] = 0, 255
    wide = points.astype(np.int64)
    exact = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    assert np.array_equal(_distances(points, points), exact)


@pytest.mark.unit
def test_features_are_means_of_areas() -> None:
    images = image_set(5, side=20).images
    features = _features(images, np.array([4, 1]))
    assert features.shape == (2, 8 * 8 * 3) and features.dtype == np.uint8
    assert features[0, 0] == int(images[4, :2, :2, 0].mean())
    assert features[1, -1] == int(images[1, 17:, 17:, 2].mean())
    small = image_set(3, side=5).images
    assert np.array_equal(_features(small, np.arange(3)), small.reshape(3, -1))


@pytest.mark.unit
@pytest.mark.parametrize("part", ["test", "validation"])
def test_statistics_are_of_what_may_be_trained_on(part: str) -> None:
    images, settings = image_set(400, test_rows=(0, 100)), settings_with(val_size=80)
    kept = np.setdiff1d(
        np.arange(400), np.concatenate([split(images, settings).test, split(images, settings).validation])
    )
    images.images[getattr(split(images, settings), part)] = 255
    parts = split(images, settings)
    pixels = images.images[kept] / 255
    assert parts.mean.dtype == parts.std.dtype == np.float32
    assert np.allclose(parts.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(parts.std, pixels.std(axis=(0, 1, 2)), atol=1e-6)
