"""Picture files of a set: opened without starting any program, and their names."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import EpsImagePlugin, Image

from aal.config.terminal import escaped

# What a picture may be, whatever its name. Other formats of Pillow start programs (EPS) or are hardly ever photos.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def open_picture(path: str | Path) -> Image.Image:
    """Opens a file of one of FORMATS, which its content decides and not its name.

    Raises:
        OSError: there is no such file, it is no regular file, or none of these formats.
    """
    if not os.path.isfile(path):  # a named pipe would block
        raise FileNotFoundError(path)
    return Image.open(path, formats=FORMATS)


@contextlib.contextmanager
def without_ghostscript() -> Iterator[None]:
    """Keeps Pillow from starting Ghostscript for PostScript, in libraries and functions that open files on their own.

    A file named photo.jpg may hold PostScript.
    """
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def printable(name: str) -> str:
    """Returns a name from an image set as text that can be printed: no control characters, whatever bytes it has."""
    return escaped(_decodable(name))


def _decodable(name: str) -> str:
    """A file name as text that can be stored, whatever bytes the file system holds."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def path_from(path: Path, data_dir: Path) -> str:
    """Returns the path of an example as it is stored: relative to `data_dir`, or absolute outside it."""
    whole, root = path.absolute(), data_dir.absolute()
    return _decodable(whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix())
