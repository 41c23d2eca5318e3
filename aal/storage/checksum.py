"""A checksum within a model file, so that a single flipped bit is noticed; checked without loading PyTorch.

A file of PyTorch is a zip archive, which may end with a comment. The comment holds the CRC-32 of all bytes before it.
Archives without the comment, of earlier versions or from elsewhere, are checked by the sums that zip itself keeps.
"""

import pathlib
import zipfile
import zlib

MARK = b"crc32="
LENGTH = len(MARK) + 8
CHUNK = 2**20


def with_checksum(archive: bytes) -> bytes:
    """Returns a zip archive without a comment, with its checksum as the comment."""
    content = archive[:-2] + LENGTH.to_bytes(2, "little")  # an archive ends with the length of its comment
    return content + MARK + f"{zlib.crc32(content):08x}".encode()


def checksum_of(path: pathlib.Path) -> str | None:
    """Returns the checksum that a file holds; None where it holds none, or is no readable file."""
    try:
        with path.open("rb") as file:
            file.seek(-LENGTH, 2)
            end = file.read()
    except OSError:
        return None
    return end.removeprefix(MARK).decode(errors="replace") if end.startswith(MARK) else None


def is_intact(path: pathlib.Path) -> bool:
    """Whether every byte of a file is as it was written; False where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file() or path.stat().st_size <= LENGTH:
        return False
    with path.open("rb") as file:
        left, checksum = path.stat().st_size - LENGTH, 0
        while left and (chunk := file.read(min(left, CHUNK))):
            checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
        end = file.read()
    if end.startswith(MARK):
        return end == MARK + f"{checksum:08x}".encode()
    try:
        with zipfile.ZipFile(path) as archive:
            return not archive.comment and archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError, zlib.error):
        return False


def is_published(path: pathlib.Path, checksum: str | None) -> bool:
    """Whether a model file is the one that was published.

    Args:
        path: of the file.
        checksum: that the record has of it; None in records of earlier versions.
    """
    try:
        return is_intact(path) and checksum in (None, checksum_of(path))
    except OSError:
        return False
