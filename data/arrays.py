"""The prepared form of an image set, a folder of arrays.

images.npy (N, H, W, C) uint8 and labels.npy (N,) int64 are memory-mapped; meta.json holds the class names. Where a set
has them, test.npy holds the ids of its own test images and paths.json the file that each row came from.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from aal.config.errors import UserError
from aal.config.settings import Settings

IMAGES, LABELS, META, TEST, PATHS = "images.npy", "labels.npy", "meta.json", "test.npy", "paths.json"
UNKNOWN = -1  # label of an example whose class is not known


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A prepared image set; the id of an example is its row.

    Attributes:
        folder: where it lies.
        data_type: as in the settings.
        images: (N, H, W, C) uint8, mapped.
        labels: (N,) int64, mapped; -1 where the class is not known.
        classes: name of each label.
        test: (n,) int64 ids of the set's own test images; None where the seed draws them.
        skipped: how many files could not be read.
    """

    folder: Path
    data_type: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    test: np.ndarray | None = None
    skipped: int = 0

    @functools.cached_property
    def paths(self) -> Sequence[str | None] | None:
        """The file of each example, relative to `data_dir` (absolute outside it); None where no example has one."""
        path = self.folder / PATHS
        return json.loads(path.read_bytes()) if path.exists() else None


@dataclass(frozen=True, eq=False)
class Contents:
    """What a loader returns of a set besides its images, which it has written.

    Attributes:
        labels: (N,) of whole numbers, -1 where the class is not known.
        classes: name of each label.
        test: ids of the set's own test images, if it has them.
        paths: file of each row, relative to `data_dir`, if it has them.
        skipped: names of images that could not be read.
        left_out: names of classes without a readable image.
    """

    labels: Sequence[int] | np.ndarray
    classes: Sequence[str]
    test: Sequence[int] | np.ndarray | None = None
    paths: Sequence[str | None] | None = None
    skipped: Sequence[str] = ()
    left_out: Sequence[str] = ()


def open_set(folder: Path) -> ImageSet:
    """Returns the set in a folder that `prepare` returned; the images stay on disk until they are used.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        # "c" maps private pages: torch.from_numpy takes writable memory only, and nothing ever reaches the file.
        images = np.load(folder / IMAGES, mmap_mode="c", allow_pickle=False)
        labels = np.load(folder / LABELS, mmap_mode="c", allow_pickle=False)
        test = np.load(folder / TEST, allow_pickle=False) if meta["own_test"] else None
        if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != (len(images),):
            raise ValueError(f"images of shape {images.shape} and labels of shape {labels.shape}")
        return ImageSet(folder, meta["data_type"], images, labels, tuple(meta["classes"]), test, len(meta["skipped"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{folder}: the prepared images are damaged ({error}); remove this folder") from None


def imagined_set(settings: Settings, number: int) -> ImageSet:
    """Returns a set of `number` images of ten classes that takes no memory, for runs that never look at the images."""
    images = np.broadcast_to(np.uint8(0), (number, 1, 1, 1))
    classes = tuple(str(label) for label in range(10))
    return ImageSet(Path(f"imagined-{number}"), settings.data_type, images, np.arange(number) % 10, classes)


def write_contents(folder: Path, data_type: str, contents: Contents) -> None:
    """Writes all files of a prepared set but images.npy."""
    np.save(folder / LABELS, np.asarray(contents.labels, np.int64))
    if contents.test is not None:
        np.save(folder / TEST, np.asarray(contents.test, np.int64))
    if contents.paths is not None and any(path is not None for path in contents.paths):
        (folder / PATHS).write_text(json.dumps(list(contents.paths)), encoding="utf-8")
    meta = {
        "data_type": data_type,
        "classes": list(contents.classes),
        "own_test": contents.test is not None,
        "skipped": list(contents.skipped),
        "left_out": list(contents.left_out),
    }
    (folder / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


class ImageWriter:
    """Streams rows into images.npy; how many there are may be known only at the end.

    Plain writes, not a writable map: on a full disk they raise OSError, where a map kills the process.

    Args:
        folder: where the file goes.
        shape: (H, W, C) of an image.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.rows = 0
        self.shape = shape
        self._file = (folder / IMAGES).open("wb")
        self._start = self._write_header()

    def _write_header(self) -> int:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def add(self, images: np.ndarray) -> None:
        """Appends (n, H, W, C) uint8 images."""
        assert images.shape[1:] == self.shape and images.dtype == np.uint8
        self._file.write(np.ascontiguousarray(images).data)
        self.rows += len(images)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                # NumPy pads a header so that the first axis can grow in place.
                assert self._write_header() == self._start
