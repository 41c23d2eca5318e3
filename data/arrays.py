"""The prepared form of an image set: images.npy, labels.npy and meta.json in one folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from aal.config.errors import UserError
from aal.config.settings import Settings

IMAGES, LABELS, META = "images.npy", "labels.npy", "meta.json"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A prepared image set; the id of an example is its row.

    Attributes:
        folder: where it lies.
        data_type: as in the settings.
        images: (N, H, W, C) uint8, mapped.
        labels: (N,) int64, mapped.
        classes: name of each label.
        test_rows: rows [start, stop) of the set's own test images; None where the seed draws them.
        skipped: how many files could not be read.
    """

    folder: Path
    data_type: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    test_rows: tuple[int, int] | None
    skipped: int = 0
    paths: Sequence[str] | None = None


@dataclass(frozen=True)
class Meta:
    """What a loader tells of a set besides its arrays; `skipped` names images, `left_out` classes without any."""

    classes: Sequence[str]
    test_rows: tuple[int, int] | None = None
    skipped: Sequence[str] = ()
    left_out: Sequence[str] = ()


def open_set(folder: Path) -> ImageSet:
    """Returns the set in a folder that `prepare` returned; the images stay on disk until they are used.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        # "c" maps private pages: torch.from_numpy wants writable memory, and nothing ever reaches the file.
        images = np.load(folder / IMAGES, mmap_mode="c", allow_pickle=False)
        labels = np.load(folder / LABELS, mmap_mode="c", allow_pickle=False)
        if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != (len(images),):
            raise ValueError(f"images of shape {images.shape} and labels of shape {labels.shape}")
        rows = meta["test_rows"] and (meta["test_rows"][0], meta["test_rows"][1])
        return ImageSet(folder, meta["data_type"], images, labels, tuple(meta["classes"]), rows, len(meta["skipped"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{folder}: the prepared images are damaged ({error}); remove this folder") from None


def imagined_set(settings: Settings, number: int) -> ImageSet:
    """Returns a set of `number` images of ten classes that takes no room, for runs that look at none."""
    images = np.broadcast_to(np.uint8(0), (number, 1, 1, 1))
    classes = tuple(str(label) for label in range(10))
    return ImageSet(Path(f"imagined-{number}"), settings.data_type, images, np.arange(number) % 10, classes, None)


def write_meta(folder: Path, data_type: str, meta: Meta) -> None:
    """Writes meta.json."""
    text = json.dumps({"data_type": data_type, **asdict(meta)}, indent=1)
    (folder / META).write_text(text, encoding="utf-8")


def write_labels(folder: Path, labels: Sequence[int] | np.ndarray) -> None:
    """Writes labels.npy."""
    np.save(folder / LABELS, np.asarray(labels, np.int64))


class ImageWriter:
    """Streams rows into images.npy; how many there are may be known only at the end.

    Plain writes, not a writable map: on a full disk they raise OSError, where a map kills the process.

    Args:
        folder: where the file goes.
        shape: (H, W, C) of an image.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._shape = shape
        self._file = (folder / IMAGES).open("wb")
        self._start = self._write_header()

    def _write_header(self) -> int:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def add(self, images: np.ndarray) -> None:
        """Appends (n, H, W, C) uint8 images."""
        assert images.shape[1:] == self._shape and images.dtype == np.uint8
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
