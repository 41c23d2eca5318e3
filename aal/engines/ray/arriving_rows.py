"""The images of a set that is too large for every machine: each comes to a machine when a role there first reads it."""

import contextlib
import pathlib
from collections.abc import Callable

import numpy as np

from aal.config.errors import RunFailed
from aal.engines.ray.files import RowContents, digest_of, part_of
from aal.storage.atomic import sync, write_whole

Ask = Callable[[np.ndarray], tuple[np.ndarray, str]]


class ArrivingRows:
    """An `.npy` file of which the rows come one after the other; all processes of a machine share it.

    Rows that are not there need next to no room on the disk. Beside the file lies another, with a byte a row, that says
    which are there: it is written when these are on disk.

    Args:
        path: of the file, which is made if it is not there.
        layout: of the one that it becomes a copy of.
        ask: gives the bytes of rows (n,), at most a chunk, and their digest.
        lock: of the file, between the processes of this machine.
    """

    def __init__(
        self,
        path: pathlib.Path,
        layout: RowContents,
        ask: Ask,
        lock: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._path, self._layout, self._ask, self._lock = path, layout, ask, lock
        known = path.with_name(f"{path.name}.rows")
        with lock():
            if not known.exists():
                with path.open("wb") as file:
                    file.write(layout.header)
                    file.truncate(layout.size)
                sync(path)
                none = np.zeros((layout.size - len(layout.header)) // layout.row, np.uint8)
                write_whole(known, none.tobytes())
        self._there = np.memmap(known, np.uint8, "r+")

    def arrive(self, rows: np.ndarray) -> None:
        """Brings those of some rows (n,) that are not there yet.

        Raises:
            RunFailed: they come over with other bytes than they have.
        """
        if self._there[rows].all():
            return
        with self._lock():
            missing = np.unique(rows[self._there[rows] == 0])
            number = 0
            while len(part := part_of(missing, number, self._layout.row)):
                self._write(part)
                number += 1
            sync(self._path)
            self._there[missing] = 1

    def _write(self, rows: np.ndarray) -> None:
        content, digest = self._ask(rows)
        if digest_of(content) != digest:
            raise RunFailed(f"{self._path}: its rows came over with other bytes than they have")
        size, begins = self._layout.row, len(self._layout.header)
        # Rows that follow one another are written at once.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        with self._path.open("r+b") as file:
            for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
                file.seek(begins + int(rows[start]) * size)
                file.write(content[start * size : end * size].data)
