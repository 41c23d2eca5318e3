"""Pictures of any format, size and colour as the pixels of images.npy."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from aal.app.data.arrays import ImageWriter
from aal.config.errors import UserError

BATCH = 512  # pictures in memory at a time
GREY = {"1", "L", "LA", "La"}  # modes of Pillow; so are all that begin with I;16


class _ColourAmongGrey(Exception):  # noqa: N818 - a signal to start again, not an error
    """A coloured picture follows grey ones."""


def write_pictures(
    folder: Path,
    number: int,
    read: Callable[[int], Image.Image],
    size: int | None,
    channels: int | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Writes images.npy from pictures, without those that cannot be read.

    Args:
        folder: where the file goes.
        number: how many pictures there are.
        read: returns the picture of a number below that; called from several threads, and for some twice.
        size: pixels a side that pictures are resized to; None where all are square and of one size already.
        channels: of the images; None: 1 where all pictures are grey, otherwise 3.
        threads: that read; None lets Python choose.

    Returns:
        (m,) int64: the numbers of the pictures that are now the rows 0 to m - 1.

    Raises:
        UserError: `size` is None and the pictures are not square or have several sizes.
    """
    write = partial(_write, folder, number, read, size, threads=threads)
    try:
        return write(channels)
    except _ColourAmongGrey:
        return write(3)


def _write(
    folder: Path,
    number: int,
    read: Callable[[int], Image.Image],
    size: int | None,
    channels: int | None,
    threads: int | None,
) -> np.ndarray:
    kept: list[int] = []
    writer: ImageWriter | None = None
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        stack.enter_context(_pillow_warnings())
        for row, pixels in enumerate(_decoded(number, read, size, pool)):
            if pixels is None:
                continue
            if writer is None:
                shape = (*pixels.shape[:2], channels or pixels.shape[2])
                _check_square(shape)
                writer = stack.enter_context(ImageWriter(folder, shape))
            writer.add(_of_shape(pixels, writer.shape)[None])
            kept.append(row)
    return np.array(kept, np.int64)


def _decoded(
    number: int, read: Callable[[int], Image.Image], size: int | None, pool: ThreadPoolExecutor
) -> Iterator[np.ndarray | None]:
    def decode(row: int) -> np.ndarray | None:
        try:
            with read(row) as picture:
                return pixels_of(picture, size)
        except UserError:
            raise
        except Exception:  # decoders raise many kinds of exceptions for damaged files
            return None

    for start in range(0, number, BATCH):
        yield from pool.map(decode, range(start, min(start + BATCH, number)))


def _check_square(shape: tuple[int, ...]) -> None:
    if shape[0] != shape[1]:
        raise UserError(
            f"image_size: the images are not square ({shape[1]} x {shape[0]} pixels); give the pixels a side that they "
            "are resized to, for example image_size=64"
        )


def _of_shape(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if pixels.shape[:2] != shape[:2]:
        (height, width), side = pixels.shape[:2], shape[0]
        raise UserError(
            f"image_size: the images have several sizes ({side} x {side} and {width} x {height} pixels); give the "
            "pixels a side that they are resized to, for example image_size=64"
        )
    if pixels.shape[2] > shape[2]:
        raise _ColourAmongGrey
    return np.broadcast_to(pixels, shape)


def pixels_of(picture: Image.Image, size: int | None) -> np.ndarray:
    """Returns the upright picture on a white ground, as (H, W, 1) uint8 where it is grey and (H, W, 3) otherwise.

    Args:
        picture: of any mode of Pillow.
        size: pixels a side to resize it to; None keeps its own size.
    """
    is_grey = picture.mode in GREY or picture.mode.startswith("I;16")
    if size is not None:
        picture.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size, much faster
    upright = _on_white(ImageOps.exif_transpose(picture))
    if size is not None:
        # Pillow's bilinear filter averages over all pixels that a new one covers; Lanczos would ring at edges.
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright)
    return pixels[..., :1] if is_grey else pixels


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # convert() would cut all above 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:  # what lies under transparent pixels is arbitrary
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


@contextlib.contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Makes a picture of absurd size an error, and ignores Pillow's other warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def printable(name: str) -> str:
    """Returns a file name as text that can be printed and stored, whatever bytes the file system holds."""
    return os.fsencode(name).decode(errors="replace")


def path_from(path: Path, data_dir: Path) -> str:
    """Returns the path of an example as it is stored: relative to `data_dir`, or absolute outside it."""
    whole, root = path.absolute(), data_dir.absolute()
    return printable(whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix())
