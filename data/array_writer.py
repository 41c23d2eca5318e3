"""Writing the prepared form of an image set."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from aal.app.data.arrays import IMAGES, LABELS, META, PATHS, TEST, Contents, Meta


def write_contents(folder: Path, data_type: str, contents: Contents) -> None:
    """Writes all files of a prepared set but images.npy."""
    np.save(folder / LABELS, np.asarray(contents.labels, np.int64))
    if contents.test is not None:
        np.save(folder / TEST, np.asarray(contents.test, np.int64))
    if contents.paths is not None and any(path is not None for path in contents.paths):
        (folder / PATHS).write_text(json.dumps(list(contents.paths)), encoding="utf-8")
    meta = Meta(
        data_type=data_type,
        classes=list(contents.classes),
        own_test=contents.test is not None,
        skipped=list(contents.skipped),
        left_out=list(contents.left_out),
    )
    (folder / META).write_text(meta.model_dump_json(indent=1), encoding="utf-8")


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
