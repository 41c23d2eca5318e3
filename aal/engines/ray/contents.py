"""What is in a file, by which a copy of it on another machine is checked."""

import hashlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CHUNK = 64 * 2**20  # bytes that travel at a time, through Ray's object store


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Attributes:
        size: in bytes.
        chunks: digest of each `CHUNK` bytes.
    """

    size: int
    chunks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Stands for the content."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class RowContents(Contents):
    """What is in some rows of an `.npy` file.

    Attributes:
        size: of the whole file, in bytes.
        chunks: digest of each chunk of the rows; a chunk holds as many whole rows as fit.
        header: the bytes before the first row.
        row: bytes of each row.
        rows: digest of which rows they are.
    """

    header: bytes
    row: int
    rows: str

    def part(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Returns which rows are in a chunk."""
        return part_of(rows, number, self.row)


def part_of(rows: np.ndarray, number: int, row: int) -> np.ndarray:
    """Returns those of some rows, of so many bytes each, that are in a chunk."""
    each = max(1, CHUNK // row)
    return rows[number * each : (number + 1) * each]


def digest_of(chunk: np.ndarray) -> str:
    """Returns what stands for the bytes of a chunk."""
    return hashlib.blake2b(chunk.data, digest_size=16).hexdigest()


def read_chunk(path: pathlib.Path, number: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Returns the bytes of a chunk of a file, or of some rows of it; none behind its end."""
    if rows is None:
        return np.fromfile(path, np.uint8, CHUNK, offset=number * CHUNK)
    array = np.load(path, mmap_mode="r")
    return array[part_of(rows, number, array[:1].nbytes)].reshape(-1).view(np.uint8)


def contents_of(
    path: pathlib.Path, rows: np.ndarray | None = None, heartbeat: Callable[[], None] = lambda: None
) -> Contents:
    """Returns what is in a file, or in some rows of an `.npy` file.

    Args:
        path: of the file.
        rows: of the array; None for the whole file.
        heartbeat: called before each chunk.
    """
    if rows is not None:
        return rows_in(path, rows, heartbeat)
    size = path.stat().st_size
    return Contents(size, _digests(path, -(-size // CHUNK), None, heartbeat))


def rows_in(path: pathlib.Path, rows: np.ndarray, heartbeat: Callable[[], None] = lambda: None) -> RowContents:
    """Returns what is in some rows of an `.npy` file."""
    array, size = np.load(path, mmap_mode="r"), path.stat().st_size
    row = array[:1].nbytes
    with path.open("rb") as file:
        header = file.read(size - array.nbytes)
    chunks = _digests(path, -(-len(rows) // max(1, CHUNK // row)), rows, heartbeat)
    return RowContents(size, chunks, header, row, digest_of(rows.view(np.uint8)))


def _digests(
    path: pathlib.Path, number: int, rows: np.ndarray | None, heartbeat: Callable[[], None]
) -> tuple[str, ...]:
    found = []
    for chunk in range(number):
        heartbeat()
        found.append(digest_of(read_chunk(path, chunk, rows)))
    return tuple(found)


def holds(path: pathlib.Path, contents: Contents, rows: np.ndarray | None, heartbeat: Callable[[], None]) -> bool:
    """Whether a copy is there and whole."""
    try:
        return path.exists() and contents_of(path, rows, heartbeat) == contents
    except (ValueError, EOFError):  # of NumPy: it is no array any more
        return False
