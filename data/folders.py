"""Image files in class folders: any such folder, and mini-ImageNet."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aal.app.data.arrays import UNKNOWN, Contents
from aal.app.data.picture_files import FORMATS, open_picture, path_from, printable
from aal.app.data.pictures import write_pictures
from aal.config.errors import UserError
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings

PARTS = ("train", "val", "test")
UNLABELLED = {"unlabelled", "unlabeled"}  # folders of images whose class is not known
LAYOUT = (
    "one folder a class, with the images in it (those without a label in a folder named unlabelled); where people are "
    "to label all of them, name the classes: classes=[cat,dog]"
)


class ImageFile(NamedTuple):
    """One image file; tuples sort by the name of its folder, then by its own."""

    label: str
    name: str
    path: Path


@IMAGE_SETS.register("folder", default_image_size=32)
class ClassFolders:
    """Loads `data_dir`, whose folders are the classes, in the order of their names.

    A folder named `unlabelled` is no class: its images have no label, and go to the workers' shards only. Where the
    settings name the classes, the same holds for all folders of other names, and for images in no folder.

    Raises:
        UserError: there is no such folder, or no class folders are in it.
    """

    _named: list[str] | None = None
    _size: int
    _parts: list[Path]

    def __init__(self, settings: Settings) -> None:
        self._size = settings.image_size or int(IMAGE_SETS.facts("folder")["default_image_size"])
        self._named = settings.classes
        self.variant = f"folder {self._size}" + (f" {self._named}" if self._named else "")
        self.root = self._data_dir = _existing(settings.data_dir)
        self._parts = [self.root]
        if self._named is None:
            self._check()

    def _check(self) -> None:
        names = {path.name for path in self._classes() if not _is_unlabelled(path.name)}
        if names and names <= {*PARTS, "valid", "validation"}:
            raise UserError(
                f"data_dir: {self.root} holds {', '.join(sorted(names))}, which are no classes; "
                f"give one of them, as {self.root / min(names)}"
            )
        self._require(names, LAYOUT)

    def _require(self, names: set[str], layout: str) -> None:
        if not names:
            inside = sorted(printable(name) for name in os.listdir(self.root) if not name.startswith("."))
            found = f"holds no class folders but {len(inside)} files such as {inside[0]}" if inside else "is empty"
            raise UserError(f"data_dir: {self.root} {found}; it must hold {layout}")

    def fetch(self) -> None:
        """Needs nothing: the files are the user's own."""

    def files(self) -> dict[str, Path]:
        """Returns the image files."""
        return {image.name: image.path for image in self._images()}

    def _classes(self) -> Iterator[Path]:
        for part in self._parts:
            yield from _visible_folders(part)

    def _hidden(self) -> set[str]:
        """The names of hidden folders with images, which may have been meant as classes."""
        return {
            path.parent.name
            for part in self._parts
            for path in part.glob(".*/*")
            if path.suffix.lower() in _extensions() and not path.name.startswith(".")
        }

    def _images(self) -> list[ImageFile]:
        known = _extensions()
        found = [(folder.name, path) for folder in self._classes() for path in _files_under(folder)]
        if self._named is not None:
            found += [("", path) for path in _files_in(self.root)]
        return sorted(
            ImageFile(name, path.relative_to(self.root).as_posix(), path)
            for name, path in found
            if path.suffix.lower() in known
        )

    def write(self, folder: Path) -> Contents:
        """Writes the (N, size, size, 3) images by class, then by name, without those that cannot be read.

        Raises:
            UserError: fewer than two images of known class can be read; where the classes are named, fewer than two.
        """
        images = self._images()
        kept = write_pictures(folder, len(images), lambda row: open_picture(images[row].path), self._size, channels=3)
        names = [images[row].label for row in kept]
        classes = self._named or sorted({name for name in names if not _is_unlabelled(name)})
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number.get(name, UNKNOWN) for name in names], np.int64)
        if (usable := len(names) if self._named else int((labels != UNKNOWN).sum())) < 2:
            total = len(images) if self._named else sum(not _is_unlabelled(image.label) for image in images)
            where = self.root if self._named else f"the class folders of {self.root}"
            raise UserError(
                f"data_dir: {usable} of the {total} image files in {where} can be read; at least 2 are needed"
            )
        folders = [] if self._named else [path.name for path in self._classes() if not _is_unlabelled(path.name)]
        left_out = set(folders) - set(classes)
        unread = sorted({*range(len(images))} - {*kept.tolist()})
        return Contents(
            labels,
            [*map(printable, classes)],
            paths=[path_from(images[row].path, self._data_dir) for row in kept],
            skipped=[printable(images[row].name) for row in unread],
            left_out=[*map(printable, sorted(left_out | self._hidden()))],
        )


@IMAGE_SETS.register("mini-imagenet", image_size=84, test_share=(10_000, 60_000))
class MiniImagenet(ClassFolders):
    """Loads mini-ImageNet from `data_dir` or its folder mini-imagenet.

    The 100 classes lie there side by side, or in train, val and test, which are pooled by the classes' names.

    Raises:
        UserError: there is no such folder, or no class folders are in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._size = int(IMAGE_SETS.facts("mini-imagenet")["image_size"])
        self.variant = "mini-imagenet"
        self._data_dir = _existing(settings.data_dir)
        inner = self._data_dir / "mini-imagenet"
        self.root = inner if inner.is_dir() else self._data_dir
        self._parts = [path for path in map(self.root.joinpath, PARTS) if path.is_dir()] or [self.root]
        names = {path.name for path in self._classes()}
        self._require(names, "the class folders of mini-imagenet, or train, val and test with class folders in them")


def _is_unlabelled(name: str) -> bool:
    return name.lower() in UNLABELLED


def _extensions() -> set[str]:
    return {extension for extension, kind in Image.registered_extensions().items() if kind in FORMATS}


def _existing(data_dir: str) -> Path:
    root = Path(data_dir).expanduser()
    if not os.path.isdir(root):  # unlike Path.is_dir, false for all that cannot be looked at
        raise UserError(f"data_dir: {root}: no such folder; give the folder that holds the images")
    return root


def _visible_folders(parent: Path) -> list[Path]:
    """The folders in `parent`, by name, without hidden ones and links that lead back to it or above it."""
    here = parent.resolve()
    try:
        folders = [parent / name for name in os.listdir(parent) if not name.startswith(".")]
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(path for path in folders if os.path.isdir(path) and not here.is_relative_to(path.resolve()))


def _files_in(folder: Path) -> Iterator[Path]:
    """The files that lie in a folder itself; a broken link counts as one that cannot be read."""
    paths = (folder / name for name in os.listdir(folder) if not name.startswith("."))
    return (path for path in paths if os.path.isfile(path) or not os.path.exists(path))


def _files_under(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise _unreadable(error)

    for parent, folders, names in os.walk(folder, onerror=fail):  # which follows no links, so loops end
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        # No named pipes, which block; a broken link counts as an image that cannot be read.
        yield from (path for path in paths if os.path.isfile(path) or not os.path.exists(path))


def _unreadable(error: OSError) -> UserError:
    return UserError(f"data_dir: {printable(str(error.filename))}: {error.strerror}; this user must be able to read it")
