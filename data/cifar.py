"""CIFAR-10 and CIFAR-100: 50,000 training rows, then 10,000 test rows."""

import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aal.app.data.array_writer import ImageWriter
from aal.app.data.arrays import Contents
from aal.app.data.downloads import downloads_into, quiet_and_bounded
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
    """Loads a CIFAR set from `data_dir`; what of it is absent is downloaded.

    Its files are pickles. They are read by torchvision, and only if their checksums are those that it publishes.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = settings.data_type
        self.variant = settings.data_type
        self.root = Path(settings.data_dir).expanduser()

    def fetch(self) -> None:
        """Checks the files, and downloads those that are not there.

        Raises:
            UserError: a file is another than the published one, or the download failed; says what to do by hand.
        """
        folder, names = FILES[self._name]
        missing = [name for name in names if not (self.root / folder / name).exists()]
        if missing:
            self._download(missing)
        for name, expected in self._checksums().items():
            path = self.root / folder / name
            found = _md5(path)
            if found != expected:
                raise UserError(
                    f"data_dir: {path} is damaged, or not from {self._name}: its MD5 checksum is {found}, not "
                    f"{expected}; move it away, and it is downloaded"
                )

    def _download(self, missing: list[str]) -> None:
        kind = self._dataset()
        archive = self.root / kind.filename
        try:
            with quiet_and_bounded(), downloads_into(self.root, [archive] if archive.is_file() else []) as temporary:
                kind(temporary, download=True)
        except (OSError, RuntimeError, EOFError, tarfile.TarError, zlib.error) as error:
            folder = self.root / FILES[self._name][0]
            absent = f"lacks {', '.join(missing)} in {folder}" if folder.is_dir() else f"is missing in {self.root}"
            raise UserError(
                f"data_dir: {self._name} {absent} and cannot be downloaded ({error}); "
                f"fetch {kind.url} by hand and put the file into {self.root}"
            ) from None

    def _checksums(self) -> dict[str, str]:
        """The published MD5 checksum of each file."""
        kind = self._dataset()
        return {**dict(kind.train_list), **dict(kind.test_list), kind.meta["filename"]: kind.meta["md5"]}

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

    def _open(self, train: bool) -> Any:
        with quiet_and_bounded():
            return self._dataset()(self.root, train=train)


def _md5(path: Path) -> str:
    if not path.is_file():
        return "none, for it is no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
