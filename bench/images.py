"""The images to measure with: CIFAR-10 where it is at hand, else random ones of the same shape."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aal.app import data
from aal.app.data import ImageSet
from aal.app.data.arrays import ImageWriter, Meta, write_labels, write_meta
from aal.config.errors import UserError
from aal.config.loading import resolve

CIFAR, MINI_IMAGENET = (32, 32, 3), (84, 84, 3)  # of an image
NUMBER, TEST = 60_000, 10_000
CHUNK = 1000


@dataclass(frozen=True)
class Source:
    """Prepared images to measure with; `real` ones are CIFAR-10, which a model can learn."""

    images: ImageSet
    real: bool

    @property
    def name(self) -> str:
        """What they are, for the reader of a table."""
        return "CIFAR-10" if self.real else "random images; speed does not depend on the pixels"


@contextlib.contextmanager
def cifar(data_dir: str | None) -> Iterator[Source]:
    """Gives CIFAR-10 from `data_dir`, where None stands for the default; it is not downloaded for a bench."""
    settings = resolve({"data_type": "cifar-10", **({"data_dir": data_dir} if data_dir else {})}, "bench")
    if (pathlib.Path(settings.data_dir).expanduser() / "cifar-10-batches-py").is_dir():
        yield Source(data.open_set(data.prepare(settings)), real=True)
    elif data_dir:
        raise UserError(f"--data_dir {data_dir}: holds no folder cifar-10-batches-py")
    else:
        with random_set("cifar-10", CIFAR, classes=10) as folder:
            yield Source(data.open_set(folder), real=False)


@contextlib.contextmanager
def random_set(data_type: str, shape: tuple[int, int, int], classes: int) -> Iterator[pathlib.Path]:
    """Gives a prepared set of random images (NUMBER, *shape) in a temporary folder."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="bench-images-") as name:
        folder = pathlib.Path(name)
        with ImageWriter(folder, shape) as writer:
            for _ in range(NUMBER // CHUNK):
                writer.add(random.integers(0, 256, (CHUNK, *shape), np.uint8))
        write_labels(folder, np.arange(NUMBER) % classes)
        own_test = (NUMBER - TEST, NUMBER) if data_type == "cifar-10" else None
        write_meta(folder, data_type, Meta([f"class {number}" for number in range(classes)], own_test))
        os.sync()  # pages that are not written yet would count as the memory of whoever maps them first
        yield folder
