"""A function of one's own as an image set: `data_type=mydata:load`, which the program calls with `data_options`."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aal.app.data.arrays import UNKNOWN, Contents
from aal.app.data.picture_files import open_picture, path_from, printable
from aal.app.data.pictures import write_pictures
from aal.config.errors import UserError
from aal.config.registry import check_options
from aal.config.settings import Settings


@dataclass(frozen=True, eq=False)
class Images:
    """What a function of one's own returns, as this, as a dict with these keys, as (images, labels) or as images alone.

    Attributes:
        images: (N, H, W) or (N, H, W, C) uint8 with 1 or 3 channels, or paths of image files, or pictures of Pillow.
        labels: N whole numbers from 0, or N names of classes, with None where the class is not known (among numbers
            also -1); None instead of a list where no class is known.
        classes: name of each label; by default the names in `labels`, sorted, or the numbers.
        test: (N,) bool, or a `range` of rows: the official test set, which must be labelled. By default the seed draws
            one.
        paths: file of each example for the record, relative to `data_dir`; by default `images`, where they are paths.
    """

    images: Any
    labels: Any = None
    classes: Sequence[str] | None = None
    test: Any = None
    paths: Sequence[str | Path | None] | None = None


class OwnImages:
    """Loads what a function of the user's returns.

    Args:
        function: called with `data_options`, and with `data_dir` where it has such a parameter.
        settings: of the run.
        **options: the `data_options`.

    Raises:
        UserError: an option does not fit the function, it fails, or it returns something else than `Images` describes.
    """

    def __init__(self, function: Callable[..., Any], settings: Settings, **options: Any) -> None:
        self._name = settings.data_type
        self._size = settings.image_size
        self.root = Path(settings.data_dir).expanduser()
        options = check_options(function, options, {"data_dir"}, "data_options")
        given = {"data_dir": self.root} if "data_dir" in signature(function).parameters else {}
        try:
            returned = function(**given, **options)
        except Exception as error:
            raise self._error(f"it failed with {type(error).__name__}: {error}") from error
        self._found = found = self._checked(returned)
        self._labels, self._classes = self._labelled(found)
        self._is_test = self._test(found)
        described = (settings.data_type, self._size, sorted(options.items()), self._classes, found.paths)
        content = hashlib.blake2b(repr(described).encode(errors="replace"), digest_size=16)
        content.update(self._labels.tobytes() + (b"" if self._is_test is None else self._is_test.tobytes()))
        for image in found.images:
            content.update(str(image).encode() if isinstance(image, str | Path) else _bytes_of(image))
        self.variant = content.hexdigest()

    def _error(self, problem: str) -> UserError:
        return UserError(f"data_type: {self._name}: {' '.join(problem.split())}")

    def _checked(self, returned: Any) -> Images:
        try:
            if isinstance(returned, dict):
                returned = Images(**returned)
            elif isinstance(returned, tuple):
                returned = Images(*returned)
            elif not isinstance(returned, Images):
                returned = Images(returned)
        except TypeError:
            fields = ", ".join(field.name for field in dataclasses.fields(Images))
            raise self._error(f"returned something else than images, (images, labels) or a dict of {fields}") from None
        images = returned.images
        if isinstance(images, np.ndarray) and images.dtype == np.uint8:
            if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape:
                shape = " x ".join(map(str, images.shape))
                raise self._error(f"returned images of shape {shape}; they must be (N, H, W) or (N, H, W, 1 or 3)")
        elif isinstance(images, np.ndarray) or not isinstance(images, Sequence) or isinstance(images, str):
            kind = getattr(images, "dtype", type(images).__name__)
            raise self._error(
                f"returned images as {kind}; they must be an array of uint8, or a list of paths or pictures"
            )
        elif wrong := [image for image in images if not isinstance(image, str | Path | Image.Image)]:
            raise self._error(f"returned a list with a {type(wrong[0]).__name__}; it must hold paths or pictures only")
        if len(images) < 2:
            raise self._error(f"returned {len(images)} images; at least 2 are needed")
        for name in ("labels", "paths"):
            column = getattr(returned, name)
            if column is not None and len(column) != len(images):
                raise self._error(f"returned {len(images)} images and {len(column)} {name}")
        return returned

    def _labelled(self, found: Images) -> tuple[np.ndarray, list[str]]:
        """Labels (N,) int64 and the names of the classes."""
        values = [None] * len(found.images) if found.labels is None else list(found.labels)
        given = [value for value in values if value is not None]
        are_names = all(isinstance(value, str) for value in given)
        if not are_names and not all(isinstance(value, int | np.integer) for value in given):
            raise self._error("returned labels that are neither all whole numbers nor all names of classes")
        classes = [str(name) for name in found.classes or (sorted(set(given)) if are_names else ())]
        if not classes and max(given, default=UNKNOWN) == UNKNOWN:
            raise self._error("returned neither labels nor classes; name the classes where no label is known")
        if are_names:
            number = {name: label for label, name in enumerate(classes)}
            if strange := set(given) - number.keys():
                raise self._error(f"returned the label {min(strange)}, which is none of its classes")
            values = [None if value is None else number[value] for value in values]
        labels = np.array([UNKNOWN if value is None else value for value in values], np.int64)
        classes = classes or [str(label) for label in range(int(labels.max()) + 1)]
        if labels.min() < UNKNOWN or labels.max() >= len(classes):
            raise self._error(f"returned labels from {labels.min()} to {labels.max()} of {len(classes)} classes")
        return labels, classes

    def _test(self, found: Images) -> np.ndarray | None:
        """Whether each row is of the official test set, (N,) bool."""
        number = len(found.images)
        if found.test is None:
            return None
        if isinstance(found.test, range):
            is_test = np.isin(np.arange(number), found.test)
            fits = len(found.test) == is_test.sum()
        else:
            is_test = np.asarray(found.test)
            fits = is_test.dtype == bool and is_test.shape == (number,)
        if not fits or not is_test.any():
            raise self._error(f"returned a test set that is neither {number} booleans nor a range of rows among them")
        return is_test

    def fetch(self) -> None:
        """Needs nothing: the function has returned the images."""

    def files(self) -> dict[str, Path]:
        """Returns the image files, where the images are files."""
        return {str(image): Path(image) for image in self._found.images if isinstance(image, str | Path)}

    def write(self, folder: Path) -> Contents:
        """Writes the images, without files that cannot be read.

        Raises:
            UserError: fewer than two can be read, or their sizes differ while `image_size` is null.
        """
        images, paths = self._found.images, self._found.paths
        kept = write_pictures(folder, len(images), lambda row: _picture(images[row]), self._size)
        if len(kept) < 2:
            raise self._error(f"{len(kept)} of the {len(images)} images can be read; at least 2 are needed")
        if paths is None:
            paths = [Path(image).absolute() if isinstance(image, str | Path) else None for image in images]
        unread = sorted({*range(len(images))} - {*kept.tolist()})
        return Contents(
            self._labels[kept],
            [*map(printable, self._classes)],
            test=None if self._is_test is None else np.flatnonzero(self._is_test[kept]),
            paths=[None if (path := paths[row]) is None else path_from(self.root / path, self.root) for row in kept],
            skipped=[printable(str(images[row])) for row in unread],
        )


def _bytes_of(image: np.ndarray | Image.Image) -> bytes:
    shape = image.shape if isinstance(image, np.ndarray) else (image.mode, image.size)
    try:
        return repr(shape).encode() + image.tobytes()
    except Exception:  # Pillow opens files lazily, and raises many kinds for damaged ones, which are skipped
        return b"damaged"


def _picture(image: Any) -> Image.Image:
    if isinstance(image, str | Path):
        return open_picture(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image.squeeze(2) if image.ndim == 3 and image.shape[2] == 1 else image)
    return image.copy()  # the caller closes what it gets
