"""The images, networks, servers and workers that are measured: here alone bench knows how they are called."""

import contextlib
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from aal.app import data
from aal.app.data import ImageSet
from aal.app.data.array_writer import ImageWriter, write_contents
from aal.app.data.arrays import Contents
from aal.app.server_train import Server
from aal.app.work_query import Worker
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.messages import ModelRef, SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.partition import Partition
from aal.storage.model_files import model_payload, save_model
from aal.strategies.pool import CandidatePool
from aal.training.images import ImageBank
from aal.training.networks import Architecture
from aal.training.scorer import ModelScorer
from bench.settings import settings_of

MODEL = "models/model.pt"  # within the folder of a run
GREY = {"mean": [0.5] * 3, "std": [0.25] * 3}  # normalises pixels where accuracy does not matter
CIFAR, MINI_IMAGENET = (32, 32, 3), (84, 84, 3)  # of an image
SIZE = (10, 3, 32)  # of a network: classes, channels, image size
NO_IDS = np.empty(0, np.int64)
NO_LABELS = NO_IDS, NO_IDS  # what no strategy of the bench looks at
NUMBER, TEST, CHUNK = 60_000, 10_000, 1000


@dataclass(frozen=True)
class Source:
    """Prepared images to measure with; `real` ones are CIFAR-10, which a model can learn."""

    images: ImageSet
    real: bool


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
        own_test = range(NUMBER - TEST, NUMBER) if data_type == "cifar-10" else None
        names = [f"class {number}" for number in range(classes)]
        write_contents(folder, data_type, Contents(np.arange(NUMBER) % classes, names, own_test))
        os.sync()  # pages that are not written yet would count as the memory of whoever maps them first
        yield folder


def network_of(name: str, width: float, seed: int = 0) -> nn.Module:
    """Returns a network for images as those of CIFAR-10."""
    return Architecture(name, *SIZE, {"width": width}).build(seed)


def publish(run: pathlib.Path, path: str, name: str, width: float, seed: int = 0) -> None:
    """Writes the file of a network as a server does, to `path` within the folder of a run."""
    network, built = network_of(name, width, seed), Architecture(name, *SIZE, {"width": width}).as_dict()
    plain: dict[str, Any] = {"images": "cifar-10", "class_names": [*"0123456789"], "labels": 0, "epoch": 0}
    payload = {"state_dict": network.state_dict(), "architecture": built, "normalisation": GREY, **plain}
    (run / path).parent.mkdir(exist_ok=True)
    save_model(run / path, model_payload(settings_of("train"), **payload))


@contextlib.contextmanager
def trainer(
    settings: Settings, images: ImageSet, split: Partition, device: torch.device, run: pathlib.Path | None = None
) -> Iterator[Callable[[], TrainedModel]]:
    """Gives a server's training jobs, one a call, on the initial labels; models go to `run` or a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        folder = run or pathlib.Path(name)
        (folder / "models").mkdir(exist_ok=True)
        server = Server(0, folder, settings, images, split, ImageBank(images.images, device))
        ids, numbers = split.initial, itertools.count()

        def train() -> TrainedModel:
            job = TrainingJob(next(numbers), len(ids))
            return server.train(job, ids, images.labels[ids], 0.0, lambda: None)

        yield train


class Selector:
    """A worker that selects with the model files in the folder of a run."""

    def __init__(self, run: pathlib.Path, images: ImageSet, device: torch.device) -> None:
        self.run, self.images, self.device = run, images, device
        self.bank = ImageBank(images.images, device)

    def select(self, count: int, ids: np.ndarray, strategy: str = "entropy", path: str = MODEL) -> np.ndarray:
        """Chooses so many of the ids."""
        grant = SelectionGrant(0, count, (ModelRef(0, path, 0),))
        return Worker(0, self.run, strategy, self.bank, seed=0).select(grant, ids, lambda: NO_LABELS, lambda: NO_IDS)

    def candidates(self, ids: np.ndarray, precision: str) -> CandidatePool:
        """Returns ids as a strategy sees them, to be scored with a precision of the settings."""
        scorer = ModelScorer(self.run / MODEL, self.bank)
        return CandidatePool(ids, [scorer], lambda: NO_LABELS, keep_embeddings=False, precision=precision)
