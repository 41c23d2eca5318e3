"""CIFAR-10 and CIFAR-100: 50,000 training rows, then 10,000 test rows."""

import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aal.app.data.arrays import Contents, ImageWriter
from aal.app.data.downloads import quiet_and_bounded
from aal.config.errors import UserError
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings

# Repeated from torchvision, which takes seconds to import: a set that is prepared does without it.
FILES = {
    "cifar-10": ("cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]),
    "cifar-100": ("cifar-100-python", ["train", "test", "meta"]),
}


@IMAGE_SETS.register("cifar-10", image_size=32, own_test=True)
@IMAGE_SETS.register("cifar-100", image_size=32, own_test=True)
class Cifar:
    """Loads a CIFAR set from `data_dir`; it is downloaded where it is absent or damaged."""

    def __init__(self, settings: Settings) -> None:
        self._name = settings.data_type
        self.variant = settings.data_type
        self.root = Path(settings.data_dir).expanduser()

    def fetch(self) -> None:
        """Checks the files, and downloads them unless they are right.

        Raises:
            UserError: the download failed; says how to do it by hand.
        """
        try:
            self._open(train=False, download=True)
        except (OSError, RuntimeError, EOFError, tarfile.TarError, zlib.error) as error:
            raise UserError(
                f"data_dir: {self._name} is missing or damaged in {self.root} and cannot be downloaded ({error}); "
                f"fetch {self._dataset().url} by hand and put the file into {self.root}"
            ) from None

    def files(self) -> dict[str, Path]:
        """Returns the batches that are there."""
        folder, names = FILES[self._name]
        paths = {name: self.root / folder / name for name in names}
        return {name: path for name, path in paths.items() if path.is_file()}

    def write(self, folder: Path) -> Contents:
        """Writes the (60000, 32, 32, 3) images, the set's own test images last."""
        with ImageWriter(folder, (32, 32, 3)) as writer:
            train = self._open(train=True)
            writer.add(train.data)
            test_start = writer.rows
            test = self._open(train=False)
            writer.add(test.data)
        labels = np.concatenate([train.targets, test.targets])
        return Contents(labels, train.classes, test=np.arange(test_start, writer.rows))

    def _dataset(self) -> Any:
        from torchvision.datasets import CIFAR10, CIFAR100

        return CIFAR10 if self._name == "cifar-10" else CIFAR100

    def _open(self, train: bool, download: bool = False) -> Any:
        with quiet_and_bounded():
            return self._dataset()(self.root, train=train, download=download)
