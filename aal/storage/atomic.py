"""Files that are never half-written, and folders that one program works in at a time."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from aal.config.errors import UserError

LOCK = ".lock"
TEMPORARY = ".tmp-"  # begins the name of a file that is being written, so that no pattern for good ones matches it


def sync(path: pathlib.Path) -> None:
    """Waits until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: pathlib.Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file so that readers find the old content or the new, never a part; it is on disk afterwards.

    Args:
        path: of the file.
        content: of the file.
        mode: its permissions, less those of the umask.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync(path.parent)


def place_of(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns which file, by device and number, is at a path; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


@contextlib.contextmanager
def claimed(folder: pathlib.Path, taken: str) -> Iterator[None]:
    """Holds a folder for this program alone; the system frees it when the program dies.

    Raises:
        UserError: another program holds it; `taken` says so.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(taken) from None
    try:
        yield
    finally:
        lock.release()
