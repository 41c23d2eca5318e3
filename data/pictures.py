"""Pictures of any format, size and colour as the pixels of images.npy."""

import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from aal.app.data.array_writer import ImageWriter
from aal.app.data.pixels import pixels_of
from aal.config.errors import UserError

READ_AHEAD = 32  # pictures that are decoded before their turn
PIXELS_AT_ONCE = 48_000_000  # of pictures that are being decoded; each takes 8 bytes a pixel meanwhile
BLOCK = 64 * 1024 * 1024  # bytes that Pillow allocates at once; blocks above 32 MiB return to the system when freed


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
        stack.enter_context(_pillow_settings())
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
    """Yields the pixels of each picture in turn; None for one that cannot be read."""
    at_once = _Shares(PIXELS_AT_ONCE)

    def decode(row: int) -> np.ndarray | None:
        try:
            with read(row) as picture:
                if size is not None:
                    picture.draft(None, (2 * size, 2 * size))  # large JPEGs at a fraction of their size: much faster
                with at_once.take(picture.width * picture.height):
                    return pixels_of(picture, size)
        except UserError:
            raise
        except Exception:  # decoders raise many kinds of exceptions for damaged files
            return None

    waiting: deque[Future[np.ndarray | None]] = deque()
    for row in range(number):
        waiting.append(pool.submit(decode, row))
        if len(waiting) == READ_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Shares:
    """Deals out a number of things among threads; who wants more than all of them gets all."""

    def __init__(self, number: int) -> None:
        self._all = self._free = number
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, wanted: int) -> Iterator[None]:
        """Waits until as many are free, and has them meanwhile."""
        share = min(wanted, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


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


@contextlib.contextmanager
def _pillow_settings() -> Iterator[None]:
    """Makes a picture of absurd size an error, ignores Pillow's other warnings, and bounds what it holds of memory.

    With its own block size, each thread would keep the memory of the largest picture that it has decoded.
    """
    block = Image.core.get_block_size()
    Image.core.set_block_size(BLOCK)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.core.set_block_size(block)
