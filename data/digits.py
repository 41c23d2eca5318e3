"""The digits that come with scikit-learn: 1,797 grey images of 8 x 8."""

from pathlib import Path

import numpy as np

from aal.app.data.array_writer import ImageWriter
from aal.app.data.arrays import Contents
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings


@IMAGE_SETS.register("digits", image_size=8, flip=False)
class Digits:
    """Loads the digits; they never change, so no file decides their content."""

    variant = "digits"
    root = None

    def __init__(self, settings: Settings) -> None:
        pass

    def fetch(self) -> None:
        """Needs nothing: the package brings the images."""

    def files(self) -> dict[str, Path]:
        """Returns no files."""
        return {}

    def write(self, folder: Path) -> Contents:
        """Writes the (1797, 8, 8, 1) images, 0..16 scaled to 0..255."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        levels = digits.images.astype(np.int64)[..., None]
        with ImageWriter(folder, levels.shape[1:]) as writer:
            writer.add(((levels * 255 + 8) // 16).astype(np.uint8))
        return Contents(digits.target, [str(name) for name in digits.target_names])
