"""Image sets that nobody would make: each must be opened or refused by one line, in bounded time.

Folders of images, CIFAR's files and prepared folders get parts that are damaged or hostile: named pipes, sockets,
devices, links in circles, pickles, PostScript, archives, arrays of other shapes and types, bytes cut or changed, names
that act on a terminal. None of them may start a program or decide what was prepared.
"""

import json
import os
import pathlib
import pickle
import random
import unittest.mock
from collections.abc import Callable
from typing import Any

import torchvision.datasets  # noqa: F401 - takes seconds, once
from PIL import EpsImagePlugin, Image

from aal.app import data
from aal.app.data import arrays, cache, cifar
from aal.config.errors import UserError
from aal.config.loading import resolve
from bench.fuzz.case import Broken, Case
from bench.fuzz.file_damages import NAMES, Evil, damage, plant

NUMBER = 10_000
SECONDS = 30.0  # most take a hundredth
SIDE, CLASSES, IMAGES = 8, 2, 6  # of the small set that is damaged


def make(place: pathlib.Path, seed: int, number: int) -> Case:
    """Makes an image set with damaged parts, to be opened as a run does."""
    chance = random.Random(f"{seed} {number}")
    top = place / str(number)
    kind = chance.choice([_folder, _folder, _prepared, _prepared, _place, _cifar])
    marker = top / "marker"
    open_ = kind(top, chance, marker)

    def attempt() -> list[str]:
        try:
            with unittest.mock.patch.object(EpsImagePlugin, "gs_binary", "gs-that-must-not-run"):
                _check(open_())
        except UserError as error:
            if len(error.problems) != 1:
                raise Broken(f"{len(error.problems)} lines: {error}") from None
            raise
        finally:
            if marker.exists():
                raise Broken("code of a file was run")
        return ["opened"]

    return Case(kind.__name__[1:], attempt)


def _check(images: data.ImageSet) -> None:
    """Checks a set that was opened."""
    number, classes = len(images.images), len(images.classes)
    if not len(images.labels) == number >= 2 or not -1 <= images.labels.min() <= images.labels.max() < classes:
        raise Broken("labels that do not fit the images")
    if images.paths is not None and len(images.paths) != number:
        raise Broken("paths that do not fit the images")
    if int(images.images.sum()) < 0:
        raise Broken("pixels that cannot be read")


def _settings(data_type: str, root: pathlib.Path, place: pathlib.Path) -> Any:
    tree = {"data_type": data_type, "models": "cnn", "data_dir": str(root), "prepared_dir": str(place)}
    return resolve({**tree, **({"image_size": SIDE} if data_type == "folder" else {})}, "fuzz")


def _opened(settings: Any) -> Callable[[], data.ImageSet]:
    return lambda: data.open_set(data.prepare(settings))


def _class_folders(root: pathlib.Path) -> pathlib.Path:
    for row in range(IMAGES):
        path = root / "ab"[row % CLASSES] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (row, 0, 0)).save(path)
    return root


def _folder(top: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A folder of images with hostile files and folders in it."""
    root = _class_folders(top / "images")
    for _ in range(chance.randint(1, 4)):
        parent = root / chance.choice(["", "a", "b", "unlabelled", ".prepared", "c" * 99])
        parent.mkdir(exist_ok=True)
        plant(parent / chance.choice(NAMES), chance, marker)
    return _opened(_settings("folder", root, top / "place"))


def _prepared(top: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A prepared folder with files of other content, opened as servers and workers do."""
    folder = data.prepare(_settings("folder", _class_folders(top / "images"), top / "place"))
    names = [arrays.META, arrays.IMAGES, arrays.LABELS, arrays.PATHS]
    if chance.random() < 0.3:
        meta = {"data_type": "folder", "classes": ["a", "b"], "own_test": True, "skipped": [], "left_out": []}
        (folder / arrays.META).write_text(json.dumps(meta))
        names = [arrays.TEST]
    for name in chance.sample(names, chance.randint(1, min(2, len(names)))):
        damage(folder / name, chance, marker)
    return lambda: data.open_set(folder)


def _place(top: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """A place of prepared sets in which index, lock and the rest are of other kinds."""
    settings = _settings("folder", _class_folders(top / "images"), top / "place")
    folder = data.prepare(settings)
    names = [cache.INDEX, ".lock", f".tmp-{folder.name}", folder.name, f"{folder.name}/{arrays.META}"]
    for name in chance.sample(names, chance.randint(1, 3)):
        if (top / "place" / name).parent.is_dir():
            damage(top / "place" / name, chance, marker)
    if chance.random() < 0.5:
        (top / "images" / "a" / "0.png").touch()
    return _opened(settings)


def _cifar(top: pathlib.Path, chance: random.Random, marker: pathlib.Path) -> Callable[[], data.ImageSet]:
    """CIFAR's files, all of them there and none of them the published one."""
    data_type = chance.choice(list(cifar.FILES))
    folder, names = cifar.FILES[data_type]
    (top / "images" / folder).mkdir(parents=True)
    for name in names:
        (top / "images" / folder / name).touch()
        damage(top / "images" / folder / name, chance, marker)
        if not os.path.lexists(path := top / "images" / folder / name) or not path.exists():
            path.unlink(missing_ok=True)
            path.write_bytes(pickle.dumps(Evil(marker)))  # one that is absent would be downloaded
    return _opened(_settings(data_type, top / "images", top / "place"))
