"""A folder of images whose classes the config names: what is labelled already, and what people are asked."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from aal.app import data
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings

pytestmark = pytest.mark.unit


def settings_of(folder: pathlib.Path, *classes: str) -> Settings:
    tree = {"data_type": "folder", "models": "cnn", "data_dir": str(folder), "prepared_dir": str(folder.parent / "p")}
    people = {"people": {"supervisors": ["eve"]}, "annotators": {"number": 0}, "worker_num": 1}
    return resolve({**tree, **people, "classes": [*classes] or None}, "test")


def photo(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(len(str(path))).randint(0, 255, (12, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_images_in_no_class_folder_have_no_label(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "photos"
    names = ["a.png", "2024/may/b.jpg", "dog/c.png", "dog/d.png", "cat/e.png", "other/f.png", ".hidden/g.png"]
    for name in names:
        photo(folder / name)
    (folder / "notes.txt").write_text("no image")
    images = data.open_set(data.prepare(settings_of(folder, "cat", "dog", "emu")))
    assert images.classes == ("cat", "dog", "emu"), "in the order of their keys"
    assert images.paths is not None
    found = dict(zip(images.paths, images.labels.tolist(), strict=True))
    assert found == {
        "a.png": -1,
        "2024/may/b.jpg": -1,
        "dog/c.png": 1,
        "dog/d.png": 1,
        "cat/e.png": 0,
        "other/f.png": -1,
    }
    again = data.open_set(data.prepare(settings_of(folder, "dog", "cat")))
    assert dict(zip(again.paths or (), again.labels.tolist(), strict=True))["cat/e.png"] == 1


def test_nobody_is_asked_for_what_is_known(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "photos"
    for number in range(40):
        photo(folder / f"{('cat', 'dog', '.')[number % 4 % 3]}/{number:02d}.png")
    settings = settings_of(folder, "cat", "dog")
    images = data.open_set(data.prepare(settings))
    fitted, _ = data.fit_to(images, settings)
    partition = data.split(images, fitted, 1)
    known = np.flatnonzero(images.labels >= 0)
    settled = np.concatenate([partition.test, partition.validation, partition.initial])
    assert sorted(settled) == known.tolist() and (images.labels[partition.shards[0]] < 0).all()


def test_no_label_at_all_is_no_obstacle(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "photos"
    for number in range(6):
        photo(folder / f"{number}.png")
    settings = settings_of(folder, "cat", "dog")
    images = data.open_set(data.prepare(settings))
    fitted, _ = data.fit_to(images, settings)
    assert (fitted.initial_size, fitted.val_size) == (0, 0)
    partition = data.split(images, fitted, 1)
    assert len(partition.shards[0]) == 6 and not len(partition.test)


def test_what_cannot_be_labelled_is_a_line(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "photos"
    photo(folder / "a.png")
    with pytest.raises(UserError, match=r"1 of the 1 image files in .*photos can be read; at least 2 are needed"):
        data.prepare(settings_of(folder, "cat", "dog"))
    with pytest.raises(UserError, match=r"holds no class folders but 1 files .* classes=\[cat,dog\]"):
        data.prepare(settings_of(folder))
    with pytest.raises(UserError, match=r"classes: must hold at least 2, not \[cat\]"):
        settings_of(folder, "cat")
    with pytest.raises(UserError, match="classes: are for data_type folder"):
        resolve({"data_type": "digits", "models": "cnn", "classes": ["a", "b"]}, "test")
