"""The prepared form of an image set, a folder of arrays.

images.npy (N, H, W, C) uint8 and labels.npy (N,) int64 are memory-mapped; meta.json holds the class names. Where a set
has them, test.npy holds the ids of its own test images and paths.json the file that each row came from.
"""

import functools
import json
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from aal.config.errors import UserError
from aal.config.settings import Settings

if TYPE_CHECKING:
    from aal.app.data.features import Features

IMAGES, LABELS, META, TEST, PATHS = "images.npy", "labels.npy", "meta.json", "test.npy", "paths.json"
UNKNOWN = -1  # label of an example whose class is not known


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A prepared image set; the id of an example is its row.

    Attributes:
        folder: where it lies.
        data_type: as in the settings.
        images: (N, H, W, C) uint8, mapped; for networks that learn on features these, (N, 1, 1, d) of floats.
        labels: (N,) int64, mapped; -1 where the class is not known.
        classes: name of each label.
        test: (n,) int64 ids of the set's own test images; None where the seed draws them.
        skipped: how many files could not be read.
        features: (N, d) floats that stand for the images, where the settings name some.
    """

    folder: Path
    data_type: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    test: np.ndarray | None = None
    skipped: int = 0
    features: "Features | None" = None

    @functools.cached_property
    def paths(self) -> Sequence[str | None] | None:
        """The file of each example, relative to `data_dir` (absolute outside it); None where no example has one.

        Raises:
            UserError: the file that lists them is damaged.
        """
        try:
            paths = TypeAdapter(list[str | None]).validate_json(read_regular(self.folder / PATHS), strict=True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            paths = []
        if len(paths) != len(self.labels):
            raise _damaged(self.folder, f"{PATHS} does not name a file for each image")
        return paths

    @property
    def features_path(self) -> Path | None:
        """The file of the features; None where there are none."""
        return self.features.path if self.features else None

    @property
    def origin(self) -> dict[str, str]:
        """What the record of a run says of the set."""
        features = {"features": self.features.digest} if self.features else {}
        classes = json.dumps(self.classes)
        return {"images": self.folder.name, "skipped_images": str(self.skipped), "classes": classes, **features}


@dataclass(frozen=True, eq=False)
class Contents:
    """What a loader returns of a set besides its images, which it has written.

    Attributes:
        labels: (N,) of whole numbers, -1 where the class is not known.
        classes: name of each label.
        test: ids of the set's own test images, if it has them.
        paths: file of each row, relative to `data_dir`, if it has them.
        skipped: names of images that could not be read.
        left_out: names of classes without a readable image, and of hidden folders with images.
    """

    labels: Sequence[int] | np.ndarray
    classes: Sequence[str]
    test: Sequence[int] | np.ndarray | None = None
    paths: Sequence[str | None] | None = None
    skipped: Sequence[str] = ()
    left_out: Sequence[str] = ()


class Meta(BaseModel):
    """What meta.json holds; see `Contents`."""

    model_config = ConfigDict(strict=True)

    data_type: str
    classes: Annotated[list[str], Field(min_length=1)]
    own_test: bool
    skipped: list[str]
    left_out: list[str]


def open_set(folder: Path) -> ImageSet:
    """Returns the set in a folder that `prepare` returned; the images stay on disk until they are used.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        meta = read_meta(folder)
        images, labels = _mapped(folder / IMAGES, np.uint8), _mapped(folder / LABELS, np.int64)
        test = _mapped(folder / TEST, np.int64) if meta.own_test else None
        _check(images, labels, test, len(meta.classes))
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from None
    return ImageSet(folder, meta.data_type, images, labels, tuple(meta.classes), test, len(meta.skipped))


def read_meta(folder: Path) -> Meta:
    """Returns what meta.json of a prepared set holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    content = read_regular(folder / META)
    try:
        return Meta.model_validate_json(content)
    except ValueError:  # pydantic's, of many lines
        raise ValueError(f"{META} is not as it was written") from None


def read_regular(path: Path) -> bytes:
    """Returns the content of a file; one that is no regular file, such as a named pipe, is not opened.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is no regular file")
    return path.read_bytes()


def _mapped(path: Path, kind: npt.DTypeLike) -> np.ndarray:
    """The array in a file; "c" maps private pages: torch.from_numpy takes writable memory only, and the file stays."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is no regular file")
    try:
        with warnings.catch_warnings(action="ignore"):  # about sizes that overflow
            array = np.lib.format.open_memmap(path, mode="c")
    except Exception:  # NumPy raises half a dozen kinds
        array = None
    if array is None or array.dtype != kind:
        raise ValueError(f"{path.name} is no whole array of {np.dtype(kind)}")
    return array


def _check(images: np.ndarray, labels: np.ndarray, test: np.ndarray | None, classes: int) -> None:
    if images.ndim != 4 or 0 in images.shape or images.shape[3] not in (1, 3) or labels.shape != (len(images),):
        raise ValueError(f"images of shape {images.shape} and labels of shape {labels.shape}")
    if not UNKNOWN <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} of {classes} classes")
    if test is not None and (test.ndim != 1 or len(np.intersect1d(test, np.arange(len(images)))) != test.size):
        raise ValueError(f"{TEST} does not hold ids of images, each once")


def _damaged(folder: Path, problem: object) -> UserError:
    return UserError(f"{folder}: the prepared images are damaged ({problem}); remove this folder")


def imagined_set(settings: Settings, number: int) -> ImageSet:
    """Returns a set of `number` images of ten classes that takes no memory, for runs that never look at the images."""
    images = np.broadcast_to(np.uint8(0), (number, 1, 1, 1))
    classes = tuple(str(label) for label in range(10))
    return ImageSet(Path(f"imagined-{number}"), settings.data_type, images, np.arange(number) % 10, classes)
