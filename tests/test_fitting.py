"""Settings that fit the image set: sizes for small folders, crops for small images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aal.app import data
from aal.config.errors import UserError
from aal.config.loading import find_config, load, read_config, resolve
from aal.config.settings import Settings

pytestmark = pytest.mark.unit


def images_of(number: int, side: int = 32, data_type: str = "folder", classes: int = 3, unknown: int = 0) -> Any:
    """A set without pixels; the last `unknown` labels are not known."""
    labels = np.arange(number) % classes
    labels[number - unknown :] = -1
    pixels = np.broadcast_to(np.uint8(0), (number, side, side, 3))
    return data.ImageSet(Path(), data_type, pixels, labels, tuple(map(str, range(classes))))


def settings_of(**changes: Any) -> Settings:
    return resolve({"data_type": "folder", "models": "cnn", **changes}, "test")


@pytest.mark.parametrize(("side", "padding"), [(8, 1), (28, 3), (32, 4), (84, 10), (224, 28)])
def test_crops_are_padded_by_an_eighth_of_the_side(side: int, padding: int) -> None:
    settings, text = data.fit_to(images_of(300, side), settings_of())
    assert settings.training.crop_padding == padding and settings.training.flip
    assert f"training.crop_padding={padding}, training.flip=true" in text
    for given in ({"training": {"crop_padding": 2, "flip": False}}, {"recipe": "paper"}):
        before = settings_of(**given)
        assert data.fit_to(images_of(300, side), before)[0].training == before.training


@pytest.mark.parametrize(
    ("data_type", "flip"),
    [("digits", False), ("cifar-10", True), ("folder", True), ("mini-imagenet", True)]
    + [(f"torchvision:{name}", False) for name in ("MNIST", "mnist", "SVHN", "EMNIST", "GTSRB")]
    + [(f"torchvision:{name}", True) for name in ("FashionMNIST", "CIFAR10", "EuroSAT")],
)
def test_digits_and_signs_are_not_flipped(data_type: str, flip: bool) -> None:
    assert data.fit_to(images_of(300, data_type=data_type), settings_of())[0].training.flip is flip


@pytest.mark.parametrize(
    ("number", "classes", "unknown", "sizes"),
    [
        (258, 5, 0, (20, 20, 4, 16)),  # 206 outside the test set; a pool of 166, of which 80 are bought
        (258, 5, 58, (16, 16, 4, 16)),
        (30, 3, 0, (2, 6, 1, 4)),
        (30, 10, 0, (2, 6, 1, 4)),
        (62_500, 10, 0, (5000, 5000, 100, 400)),  # 50,000 outside the test set, as in CIFAR-10
        (10**6, 10, 0, (5000, 5000, 100, 400)),
    ],
)
def test_sizes_scale_with_the_set(number: int, classes: int, unknown: int, sizes: tuple[int, ...]) -> None:
    images = images_of(number, classes=classes, unknown=unknown)
    settings, text = data.fit_to(images, load("folder.yaml"))
    names = ("val_size", "initial_size", "query_batch", "server_train_threshold")
    assert tuple(getattr(settings, name) for name in names) == sizes
    assert text.startswith(", ".join(f"{name}={size}" for name, size in zip(names, sizes, strict=True)))
    partition = data.split(images, settings, settings.worker_num)
    assert len(partition.initial) == sizes[1] and min(map(len, partition.shards)) >= 1
    assert data.fit_to(images, settings) == (settings, "")


def test_the_defaults_of_large_sets_are_as_documented() -> None:
    settings, _ = data.fit_to(images_of(62_500), settings_of())
    assert (settings.val_size, settings.initial_size, settings.query_batch) == (5000, 5000, 100)
    assert settings.server_train_threshold == 1000 and settings.training.crop_padding == 4


def test_what_is_given_is_kept() -> None:
    given = {"val_size": 0, "initial_size": 7, "query_batch": 3, "server_train_threshold": 9}
    before = settings_of(**given)
    after, text = data.fit_to(images_of(258), before)
    assert {key: getattr(after, key) for key in given} == given and "size" not in text
    part, _ = data.fit_to(images_of(258), settings_of(initial_size=100, worker_num=2, worker_query_num=5))
    assert (part.initial_size, part.val_size, part.query_batch) == (100, 20, 4)


def test_what_no_longer_fits_together_is_reported() -> None:
    settings = load("folder.yaml", ["server_train_threshold=90"])
    with pytest.raises(UserError, match=r"server_train_threshold: 90 is more than the budget .* = 80"):
        data.fit_to(images_of(258), settings)


def test_the_config_for_folders_leaves_the_sizes_open() -> None:
    tree = read_config(find_config("folder.yaml"))
    assert {key for key in Settings.LEFT_OPEN if tree[key] is None} == Settings.LEFT_OPEN
