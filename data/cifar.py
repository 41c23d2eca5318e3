"""CIFAR-10 and CIFAR-100: 50,000 training rows, then 10,000 test rows."""

import contextlib
import socket
import sys
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aal.app.data.arrays import ImageWriter, Meta, write_labels
from aal.config.errors import UserError
from aal.config.settings import Settings

# Told here as well as in torchvision, which takes seconds to import: a set that is prepared does without it.
FILES = {
    "cifar-10": ("cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]),
    "cifar-100": ("cifar-100-python", ["train", "test", "meta"]),
}
NETWORK_TIMEOUT_S = 60.0


class Cifar:
    """Loads a CIFAR set from `data_dir`; it is downloaded where it is absent or damaged."""

    def __init__(self, settings: Settings) -> None:
        self._name: str = settings.data_type
        self.variant: str = settings.data_type
        self.root = Path(settings.data_dir).expanduser()

    def fetch(self) -> None:
        """Checks the files, and downloads them unless they are right.

        Raises:
            UserError: the download failed; tells how to do it by hand.
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

    def write(self, folder: Path) -> Meta:
        """Writes the (60000, 32, 32, 3) images, the set's own test images last."""
        with ImageWriter(folder, (32, 32, 3)) as writer:
            train = self._open(train=True)
            writer.add(train.data)
            test_start = writer.rows
            test = self._open(train=False)
            writer.add(test.data)
        write_labels(folder, np.concatenate([train.targets, test.targets]))
        return Meta(train.classes, (test_start, writer.rows))

    def _dataset(self) -> Any:
        from torchvision.datasets import CIFAR10, CIFAR100

        return CIFAR10 if self._name == "cifar-10" else CIFAR100

    def _open(self, train: bool, download: bool = False) -> Any:
        with _quiet_and_bounded():
            return self._dataset()(self.root, train=train, download=download)


@contextlib.contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """Keeps standard output clean and a silent network from holding us for ever."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about pickles of the year 2009
            yield
    finally:
        socket.setdefaulttimeout(timeout)
