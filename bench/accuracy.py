"""Whether speed costs accuracy: the modern recipe on CIFAR-10, our path against the plain float32 loop.

Not among the parts of `python -m bench`, for it takes long. Example:
  python -m bench.accuracy --labels 5000 25000 --data_dir data/downloads
"""

import argparse
import concurrent.futures
import copy
import functools
import multiprocessing
import pathlib
import statistics
import sys
import tempfile

import torch

from aal.app import data
from aal.app.data import ImageSet
from aal.app.models import build_model
from aal.app.server_train import Server
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.messages import TrainingJob
from aal.coordination.partition import Partition
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import ImageBank, normalisation_of
from bench import plain
from bench.images import cifar
from bench.options import Options, at_least_one

WAYS = ("ours", "plain loop")
MOST_LABELS = 45_000  # the training images but those that validate


def main(words: list[str] | None = None) -> int:
    """Prints a line for each pair of trainings and the means; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    some = functools.partial(at_least_one, most=MOST_LABELS)
    parser.add_argument("--labels", type=some, nargs="+", default=[5000, 25_000], help="(default: 5000 25000)")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="(default: 3)")
    parser.add_argument("--epochs", type=at_least_one, help="instead of the recipe's")
    parser.add_argument(
        "--jobs", type=at_least_one, help="trainings at a time, a CPU thread each (default: all cores; GPU: 1)"
    )
    parser.add_argument("--data_dir", help="where CIFAR-10 is (default: data/downloads)")
    arguments = parser.parse_args(words)
    jobs = arguments.jobs or (1 if torch.cuda.is_available() else Options().cores)
    try:
        with cifar(arguments.data_dir) as source:
            if not source.real:
                raise UserError("accuracy needs CIFAR-10; give its folder with --data_dir")
            _compare(source.images.folder, arguments.labels, arguments.seeds, arguments.epochs, jobs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(folder: pathlib.Path, sizes: list[int], seeds: int, epochs: int | None, jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        cases = [(labels, seed) for labels in sizes for seed in range(seeds)]
        found = {case: [pool.submit(train, way, folder, *case, epochs) for way in WAYS] for case in cases}
        for labels in sizes:
            pairs = []
            for seed in range(seeds):
                pairs.append([future.result() for future in found[labels, seed]])
                _tell(f"{labels} labels, seed {seed}", pairs[-1])
            _tell(f"{labels} labels, mean", [statistics.mean(column) for column in zip(*pairs, strict=True)])


def _tell(what: str, accuracies: list[float]) -> None:
    print(f"{what}: {', '.join(f'{way} {x:.2f} %' for way, x in zip(WAYS, accuracies, strict=True))}", flush=True)


def settings_of(labels: int, seed: int, epochs: int | None) -> Settings:
    """The modern recipe on so many labels of CIFAR-10."""
    tree = {"data_type": "cifar-10", "initial_size": labels, "seed": seed, "models": "vgg16_bn", "width": 0.25}
    training = {} if epochs is None else {"epochs": epochs, "validate_after": 3 * epochs // 4}
    return resolve({**tree, "training": training}, "bench")


def train(way: str, folder: pathlib.Path, labels: int, seed: int, epochs: int | None) -> float:
    """Trains in one of the WAYS, from the same weights on the same labels; returns the test accuracy in percent."""
    torch.set_num_threads(1)
    settings, images, device = settings_of(labels, seed, epochs), data.open_set(folder), resolve_device("auto", 0)
    split = data.split(images, settings, settings.worker_num)
    if way != "ours":
        return 100 * _plainly(images, split, settings, device)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as name:
        (pathlib.Path(name) / "models").mkdir()
        server = Server(0, pathlib.Path(name), settings, images, split, ImageBank(images.images, device))
        ticket = TrainingJob(0, labels)
        trained = server.train(ticket, split.initial, images.labels[split.initial], 0.0, lambda: None)
    return 100 * (trained.test_accuracy or 0.0)


def _plainly(images: ImageSet, split: Partition, settings: Settings, device: torch.device) -> float:
    """Returns the test accuracy of the plain loop, which keeps the best of the same epochs."""
    torch.manual_seed(settings.seed)
    training = settings.training
    normalisation = normalisation_of(training, split.mean, split.std)
    seed = derive(settings.seed, "weights", 0)  # as a server's first model
    model = build_model("vgg16_bn", classes=10, channels=3, image_size=32, width=0.25, seed=seed)
    best, weights = -1.0, model.state_dict()

    def keep(epoch: int) -> None:
        nonlocal best, weights
        if epoch <= min(training.validate_after, training.epochs - 1):
            return
        found = plain.accuracy(model, images, split.validation, normalisation, device)
        if found >= best:
            best, weights = found, copy.deepcopy(model.state_dict())

    plain.train(
        model, images, split.initial, training=training, normalisation=normalisation, device=device, after_epoch=keep
    )
    model.load_state_dict(weights)
    return plain.accuracy(model, images, split.test, normalisation, device)


if __name__ == "__main__":
    sys.exit(main())
