"""The initial images chosen on features, and a long-tailed pool."""

import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aal.app import data
from aal.app.data import splits
from aal.app.data.arrays import ImageSet
from aal.cold_start import chooser
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings

pytestmark = pytest.mark.unit
CLASSES, EACH = 6, 60


def settings_for(**changes: Any) -> Settings:
    tree = {
        **{"data_type": "digits", "models": "linear", "features": "f.npy", "initial_size": CLASSES, "val_size": 10},
        **{"worker_num": 2, "server_train_threshold": 10, **changes},
    }
    return resolve(tree, "test")


def clusters(classes: int = CLASSES, each: int = EACH, seed: int = 0) -> ImageSet:
    """A set whose features are a tight cluster for each class; the last fifth of each class is for testing."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = (10 * np.eye(classes)[labels] + random.normal(size=(len(labels), classes))).astype(np.float32)
    test = np.flatnonzero(np.tile(np.arange(each) >= each * 4 // 5, classes))
    path = pathlib.Path("f.npy")
    images, names = np.zeros((len(labels), 8, 8, 1), np.uint8), tuple(map(str, range(classes)))
    return ImageSet(path, "digits", images, labels, names, test, features=data.Features(path, rows, ""))


@pytest.mark.parametrize("strategy", ["typiclust", "coreset"])
def test_the_initial_images_are_chosen_on_features(strategy: str) -> None:
    """With as many images as clusters, the choice has one of each, which few draws at random have."""
    image_set, settings = clusters(), settings_for(initial_strategy=strategy)
    parts = data.split(image_set, settings, 2, chooser(settings, image_set))
    assert sorted(image_set.labels[parts.initial]) == list(range(CLASSES))
    again = data.split(image_set, settings, 3, chooser(settings, image_set))
    assert again.initial.tolist() == parts.initial.tolist(), "it does not depend on the number of shards"
    everything = np.concatenate([parts.test, parts.validation, parts.initial, *parts.shards])
    assert sorted(everything) == list(range(CLASSES * EACH))
    other = settings_for(initial_strategy=strategy, seed=1)
    assert data.split(image_set, other, 2, chooser(other, image_set)).initial.tolist() != parts.initial.tolist()


def test_at_random_and_of_none_nothing_chooses() -> None:
    image_set = clusters()
    assert chooser(settings_for(), image_set) is None
    none = settings_for(initial_strategy="coreset", initial_size=0)
    assert len(data.split(image_set, none, 2, chooser(none, image_set)).initial) == 0


@given(ratio=st.floats(1.01, 500), classes=st.integers(1, 8), each=st.integers(5, 60), seed=st.integers(0, 99))
def test_the_sizes_of_a_long_tail_fall_exponentially(ratio: float, classes: int, each: int, seed: int) -> None:
    image_set = clusters(classes, each)
    settings = settings_for(imbalance=ratio, initial_size=1, val_size=0, seed=seed)
    is_test, kept, unknown = splits.divide(image_set, settings)
    assert image_set.test is not None and np.flatnonzero(is_test).tolist() == image_set.test.tolist()
    assert not len(unknown)
    assert not is_test[kept].any() and len(np.unique(kept)) == len(kept)
    sizes = np.bincount(image_set.labels[kept], minlength=classes)
    most = each * 4 // 5
    wanted = most * ratio ** (-np.arange(classes) / max(1, classes - 1))
    assert (np.abs(sizes - np.maximum(wanted, 1)) <= 1).all() and sizes[0] == most


def test_what_a_long_tail_leaves_out_is_nowhere_in_a_run() -> None:
    image_set, settings = clusters(), settings_for(imbalance=20.0)
    parts = data.split(image_set, settings, 2)
    inside = np.concatenate([parts.test, parts.validation, parts.initial, *parts.shards])
    assert len(np.unique(inside)) == len(inside) < CLASSES * EACH
    fitted, _ = data.fit_to(image_set, settings_for(imbalance=20.0, initial_size=None, val_size=None))
    assert fitted.initial_size + fitted.val_size < len(inside) - len(parts.test)


def test_a_long_tail_of_unknown_labels_is_refused() -> None:
    image_set = clusters()
    image_set.labels[3] = -1
    with pytest.raises(UserError, match="imbalance: the labels of 1 images are unknown"):
        data.split(image_set, settings_for(imbalance=2.0), 2)
