"""The images of a set that is too large for every machine: each comes to a machine when a role there first reads it."""

import contextlib
import functools
import os
import pathlib
import weakref
from collections.abc import Callable

import numpy as np

from aal.config.errors import RunFailed
from aal.engines.ray.contents import RowContents, digest_of, part_of
from aal.storage.atomic import TEMPORARY, sync
from aal.storage.retry import write_with_retry

Ask = Callable[[np.ndarray], tuple[np.ndarray, str]]
Lock = Callable[[], contextlib.AbstractContextManager[None]]


class ArrivingRows:
    """An `.npy` file of which the rows come one after the other; all processes of a machine share it.

    Rows that are not there need next to no room on the disk. Beside the file lies another, with a byte a row, that says
    which are there: it says so when they are on disk. Both are made while the lock is held.

    Args:
        path: of the file, which is made if it is not there.
        layout: of the one that it becomes a copy of.
        ask: gives the bytes of rows (n,), at most a chunk, and their digest.
        lock: of the file, between the processes of this machine.
        heartbeat: called while the disk takes nothing.
    """

    def __init__(
        self, path: pathlib.Path, layout: RowContents, ask: Ask, lock: Lock, heartbeat: Callable[[], None]
    ) -> None:
        self._path, self._layout, self._ask, self._lock, self._heartbeat = path, layout, ask, lock, heartbeat
        there = path.with_name(f"{path.name}.rows")
        if not (path.exists() and there.exists()):  # never one alone: who has the former ones keeps both
            _make(path, layout.header, layout.size)
            _make(there, b"", (layout.size - len(layout.header)) // layout.row)
        # What is written goes to the file that this process maps, also when its name is another one's by then.
        self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        self._there = np.memmap(there, np.uint8, "r+")

    def arrive(self, rows: np.ndarray) -> None:
        """Brings those of some rows (n,) that are not there yet, a chunk at a time.

        Raises:
            RunFailed: they come over with other bytes than they have, or the disk does not take them.
        """
        wanted, number = np.unique(rows[self._there[rows] == 0]), 0
        while len(part := part_of(wanted, number, self._layout.row)):
            write_with_retry(functools.partial(self._bring, part), str(self._path), self._heartbeat)
            number += 1

    def _bring(self, rows: np.ndarray) -> None:
        with self._lock():
            rows = rows[self._there[rows] == 0]  # another process may have brought some
            if len(rows):
                content, digest = self._ask(rows)
                if digest_of(content) != digest:
                    raise RunFailed(f"{self._path}: its rows came over with other bytes than they have")
                self._write(rows, content)
                os.fsync(self._file.fileno())
                self._there[rows] = 1

    def _write(self, rows: np.ndarray, content: np.ndarray) -> None:
        size, begins = self._layout.row, len(self._layout.header)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # rows that follow one another are written at once
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._file.seek(begins + int(rows[start]) * size)
            left = content[start * size : end * size].data
            while len(left):
                left = left[self._file.write(left) :]


def _make(path: pathlib.Path, begin: bytes, size: int) -> None:
    """Puts a file in place that begins with some bytes and has nothing else in it."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with temporary.open("wb") as file:
        file.write(begin)
        file.truncate(size)
    sync(temporary)
    os.replace(temporary, path)
