"""Image files in class folders: any such folder, and mini-ImageNet."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from aal.app.data.arrays import ImageWriter, Meta, write_labels
from aal.config.errors import UserError
from aal.config.settings import FOLDER_SIDE, IMAGE_SIDES, Settings

PARTS = ("train", "val", "test")
BATCH = 512  # images in memory at a time


class ImageFile(NamedTuple):
    """One image file; tuples sort by class, then by name."""

    label: str
    name: str
    path: Path


class ClassFolders:
    """Loads `data_dir`, whose folders are the classes, in the order of their names.

    Raises:
        UserError: there is no such folder, or no class folders are in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._size = settings.image_size or FOLDER_SIDE
        self.variant = f"folder {self._size}"
        self.root = _existing(settings.data_dir)
        self._parts = [self.root]
        self._check()

    def _check(self) -> None:
        names = {path.name for path in _visible_folders(self.root)}
        if names and names <= {*PARTS, "valid", "validation"}:
            raise UserError(
                f"data_dir: {self.root} holds {', '.join(sorted(names))}, which are no classes; "
                f"give one of them, as {self.root / min(names)}"
            )
        self._require(names, "one folder a class, with the images in it")

    def _require(self, names: set[str], layout: str) -> None:
        if not names:
            inside = sorted(name for name in os.listdir(self.root) if not name.startswith("."))
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

    def _images(self) -> list[ImageFile]:
        known = _extensions()
        return sorted(
            ImageFile(folder.name, path.relative_to(self.root).as_posix(), path)
            for folder in self._classes()
            for path in _files_under(folder)
            if path.suffix.lower() in known
        )

    def write(self, folder: Path) -> Meta:
        """Writes the (N, size, size, 3) images by class, then by name, without those that cannot be read.

        Raises:
            UserError: fewer than two images can be read.
        """
        images, kept, skipped = self._images(), [], []
        read = partial(read_image, size=self._size)
        with ImageWriter(folder, (self._size, self._size, 3)) as writer, _strict(), ThreadPoolExecutor() as pool:
            for start in range(0, len(images), BATCH):
                batch = images[start : start + BATCH]
                for image, pixels in zip(batch, pool.map(read, [image.path for image in batch]), strict=True):
                    if pixels is None:
                        skipped.append(_shown(image.name))
                    else:
                        writer.add(pixels[None])
                        kept.append(image.label)
        if len(kept) < 2:
            raise UserError(
                f"data_dir: {len(kept)} of the {len(images)} image files in the class folders of {self.root} "
                "can be read; at least 2 are needed"
            )
        classes = sorted(set(kept))
        write_labels(folder, np.searchsorted(classes, kept))
        left_out = sorted({path.name for path in self._classes()} - set(classes))
        return Meta([*map(_shown, classes)], skipped=skipped, left_out=[*map(_shown, left_out)])


class MiniImagenet(ClassFolders):
    """Loads mini-ImageNet from `data_dir` or its folder mini-imagenet.

    The 100 classes lie there side by side, or in train, val and test, which are pooled by the classes' names.

    Raises:
        UserError: there is no such folder, or no class folders are in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._size = IMAGE_SIDES["mini-imagenet"]
        self.variant = "mini-imagenet"
        root = _existing(settings.data_dir)
        inner = root / "mini-imagenet"
        self.root = inner if inner.is_dir() else root
        self._parts = [path for path in map(self.root.joinpath, PARTS) if path.is_dir()] or [self.root]
        names = {path.name for path in self._classes()}
        self._require(names, "the class folders of mini-imagenet, or train, val and test with class folders in them")


def read_image(path: Path, size: int) -> np.ndarray | None:
    """Returns an image as (size, size, 3) uint8, or None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size, much faster
            upright = _on_white(ImageOps.exif_transpose(image))
            # Pillow's bilinear filter averages over all pixels that a new one covers; Lanczos would ring at edges.
            return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    except Exception:  # decoders raise whatever a damaged file makes them stumble on
        return None


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would cut all above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:  # what lies under transparent pixels is arbitrary
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """A picture of absurd size is an error, and no other warning of Pillow's is of use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _extensions() -> set[str]:
    return {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _existing(data_dir: str) -> Path:
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"data_dir: {root}: no such folder; give the folder that holds the images")
    return root


def _visible_folders(parent: Path) -> list[Path]:
    """The folders in `parent`, by name, without hidden ones and links that lead back to it or above it."""
    here = parent.resolve()
    try:
        folders = [path for path in parent.iterdir() if not path.name.startswith(".") and path.is_dir()]
    except OSError as error:
        raise UserError(f"data_dir: {parent}: {error.strerror}; this user must be able to read it") from None
    return sorted(path for path in folders if not here.is_relative_to(path.resolve()))


def _files_under(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # which follows no links, so loops end
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        # Not a named pipe, which would be waited for; a broken link is told as an image that cannot be read.
        yield from (path for path in paths if path.is_file() or not path.exists())


def _shown(name: str) -> str:
    """The name as text that can be printed, whatever bytes the file system holds."""
    return os.fsencode(name).decode(errors="replace")
