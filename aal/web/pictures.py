"""Images by their ids: the source file as it is where browsers show its format, else a picture of it."""

import contextlib
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from aal.app.data.picture_files import open_picture
from aal.app.data.pixels import pixels_of

TYPES = {  # of Pillow's formats, those that browsers show
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}
LARGEST_FILE = 64 * 2**20  # bytes that are sent as they are
LONGEST_SIDE = 2048  # pixels of a picture that is made of another format


class Pictures:
    """The images of a set.

    Args:
        data_dir: that the paths are relative to.
        paths: source file of every image; None where there are none.
        pixels: file of the prepared (n, H, W, C) uint8 images.
    """

    def __init__(self, data_dir: str, paths: Sequence[str | None] | None, pixels: pathlib.Path) -> None:
        self._root, self._paths = pathlib.Path(data_dir), paths
        self._pixels = np.load(pixels, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, example: int) -> tuple[bytes, str]:
        """Returns the content of an image and its media type; it is at its own resolution where there is a file.

        Args:
            example: the id.
        """
        path = self._paths[example] if self._paths else None
        if path is not None:
            with contextlib.suppress(Exception):  # it is gone, or damaged, for which Pillow raises many kinds
                return self._source(self._root / path)
        return _png(Image.fromarray(self._pixels[example].squeeze()))

    def _source(self, path: pathlib.Path) -> tuple[bytes, str]:
        with open_picture(path) as picture:  # whose content decides the format, so that no other kind is ever sent
            if picture.format in TYPES and path.stat().st_size <= LARGEST_FILE:
                return path.read_bytes(), TYPES[picture.format]
            picture.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            return _png(Image.fromarray(pixels_of(picture, None).squeeze()))


def _png(picture: Image.Image) -> tuple[bytes, str]:
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue(), "image/png"
