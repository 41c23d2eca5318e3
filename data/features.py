"""Features of the images, such as embeddings of DINO or CLIP: a mapped .npy file with a row for each image."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from aal.app.data.arrays import ImageSet
from aal.config.errors import UserError

CHUNK_BYTES = 2**24
KINDS = ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Numbers that stand for each image of a set.

    Attributes:
        path: of the file.
        rows: (N, d) of floats, mapped from it.
        digest: of their content.
    """

    path: Path
    rows: np.ndarray
    digest: str


def open_features(path: Path, images: int, name: str) -> Features:
    """Returns the features of a file; every number of it is read once and checked.

    Args:
        path: of the .npy file.
        images: how many rows there must be.
        name: of the image set, for messages.

    Raises:
        UserError: the file is no such array, has another number of rows, or holds NaN or infinity.
    """
    rows = _mapped(path)
    problem = None
    if rows.ndim != 2 or 0 in rows.shape:
        problem = f"must be of shape (images, numbers), not {rows.shape}"
    elif rows.dtype.name not in KINDS or not rows.dtype.isnative:
        problem = f"must hold {', '.join(KINDS)} of this machine's byte order, not {rows.dtype.str} ({rows.dtype.name})"
    elif len(rows) != images:
        problem = f"has {len(rows)} rows, and {name} has {images} images; it needs a row for each, in the order of ids"
    if problem:
        raise UserError(f"features: {path}: {problem}")
    return Features(path, rows, _checked_content(path, rows))


def on_features(image_set: ImageSet, features: Path) -> ImageSet:
    """Returns a set whose images are its features, one pixel of d channels each, for networks that learn on them."""
    rows = np.load(features, mmap_mode="c")
    return dataclasses.replace(image_set, images=rows[:, None, None, :])


def _mapped(path: Path) -> np.ndarray:
    if not path.exists():
        raise UserError(f"features: {path}: there is no such file")
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"features: {path}: is no file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except PermissionError as error:
        raise UserError(f"features: {path}: {error.strerror}") from None
    except Exception:  # NumPy raises half a dozen kinds
        text = "is no .npy file of numbers, or is damaged; numpy.save writes one"
        raise UserError(f"features: {path}: {text}") from None


def _checked_content(path: Path, rows: np.ndarray) -> str:
    """Returns the digest of all rows; raises UserError where one is no row of finite float32 numbers."""
    content = hashlib.blake2b(repr((rows.shape, rows.dtype.str)).encode(), digest_size=8)
    step = max(1, CHUNK_BYTES // (rows.shape[1] * rows.itemsize))
    for start in range(0, len(rows), step):
        chunk = np.ascontiguousarray(rows[start : start + step])
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = chunk.astype(np.float32, copy=False)
            is_finite = np.isfinite(np.einsum("ij,ij->i", numbers, numbers))  # distances are made of squares
        if not is_finite.all():
            place = start + int(is_finite.argmin())
            text = f"row {place} holds a number that is NaN, infinite, or whose square is beyond float32"
            raise UserError(f"features: {path}: {text}")
        content.update(chunk.data)
    return content.hexdigest()
