"""Files that are never half-written."""

import contextlib
import os
import pathlib

TEMPORARY = ".tmp-"  # begins the name of a file that is being written, so that no pattern for good ones matches it


def sync(path: pathlib.Path) -> None:
    """Waits until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that readers find the old content or the new, never a part; it is on disk afterwards.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync(path.parent)
