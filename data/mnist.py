"""MNIST and KMNIST: the training rows, then the test rows, grey, 28 pixels a side."""

import dataclasses
import gzip
import zlib
from pathlib import Path

import numpy as np

from aal.app.data.array_writer import ImageWriter
from aal.app.data.arrays import Contents
from aal.app.data.torchvision_sets import TorchvisionSet
from aal.config.errors import UserError
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings

PARTS = ("train", "t10k")
CLASSES = {"mnist": list("0123456789"), "kmnist": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]}
HEADERS = {"images-idx3": 16, "labels-idx1": 8}  # bytes before the numbers


@IMAGE_SETS.register("mnist", image_size=28, own_test=True, flip=False)
@IMAGE_SETS.register("kmnist", image_size=28, own_test=True, flip=False)
class Mnist(TorchvisionSet):
    """Loads the four original files from `data_dir/mnist` or `data_dir/kmnist`.

    Without them it is the set of torchvision, which looks in `data_dir/MNIST/raw` and downloads what is missing.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.data_type, settings)
        self._folder = self.root / settings.data_type
        self._classes = CLASSES[settings.data_type]

    def fetch(self) -> None:
        """Opens the set of torchvision where the four files are not there; see `TorchvisionSet.fetch`."""
        if not self._has_files:
            super().fetch()

    @property
    def _has_files(self) -> bool:
        return all(self._path(part, kind).is_file() for part in PARTS for kind in HEADERS)

    def _path(self, part: str, kind: str) -> Path:
        return self._folder / f"{part}-{kind}-ubyte.gz"

    def write(self, folder: Path) -> Contents:
        """Writes the (70000, 28, 28, 1) images, the set's own test images last.

        Raises:
            UserError: a file is damaged.
        """
        if not self._has_files:
            return dataclasses.replace(super().write(folder), classes=self._classes)
        images = [self._read(part, "images-idx3").reshape(-1, 28, 28, 1) for part in PARTS]
        labels = [self._read(part, "labels-idx1").astype(np.int64) for part in PARTS]
        if [len(one) for one in images] != [len(one) for one in labels]:
            raise UserError(f"data_dir: {self._folder}: has other numbers of images than of labels")
        with ImageWriter(folder, (28, 28, 1)) as writer:
            for part in images:
                writer.add(part)
        rows = sum(map(len, images))
        return Contents(np.concatenate(labels), self._classes, test=np.arange(len(images[0]), rows))

    def _read(self, part: str, kind: str) -> np.ndarray:
        path = self._path(part, kind)
        try:
            content = gzip.decompress(path.read_bytes())
            numbers = np.frombuffer(content, np.uint8, offset=HEADERS[kind])
            if kind == "images-idx3" and len(numbers) % 784:
                raise ValueError("its last image is not whole")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise UserError(f"data_dir: {path} is damaged ({error}); move it away") from None
        return numbers
