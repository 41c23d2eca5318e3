"""Whether speed costs accuracy: the modern recipe on CIFAR-10, our path against the plain float32 loop.

Not among the parts of `python -m bench`, for it takes long. Example:
  python -m bench.accuracy --labels 5000 25000 --data_dir data/downloads
"""

import copy
import functools
import itertools
import multiprocessing
import pathlib
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from aal.app import data
from aal.app.data import ImageSet, Split
from aal.config.cores import core_count
from aal.config.errors import UserError
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import normalisation_of
from bench.baseline import Baseline
from bench.harness import cifar, network_of, trainer
from bench.rows import at_least_one, parser_of
from bench.settings import settings_of

WAYS = ("ours", "plain loop")
MOST_LABELS = 45_000  # the training images but those that validate


def main(words: list[str] | None = None) -> int:
    """Prints a line for each pair of trainings and the means; returns the exit code."""
    parser = parser_of("bench.accuracy", __doc__)
    some = functools.partial(at_least_one, most=MOST_LABELS)
    parser.add_argument("--labels", type=some, nargs="+", default=[5000, 25_000], help="(default: 5000 25000)")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="(default: 3)")
    parser.add_argument("--epochs", type=at_least_one, help="instead of the recipe's")
    jobs = "trainings at a time, a CPU thread each (default: all cores; GPU: 1)"
    parser.add_argument("--jobs", type=at_least_one, help=jobs)
    parser.add_argument("--data_dir", help="where CIFAR-10 is (default: data/downloads)")
    arguments = parser.parse_args(words)
    try:
        with cifar(arguments.data_dir) as source:
            if not source.real:
                raise UserError("accuracy needs CIFAR-10; give its folder with --data_dir")
            at_once = arguments.jobs or (1 if torch.cuda.is_available() else core_count())
            _compare(source.images.folder, arguments.labels, arguments.seeds, arguments.epochs, at_once)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(folder: pathlib.Path, sizes: list[int], seeds: int, epochs: int | None, jobs: int) -> None:
    def show(what: str, found: np.ndarray) -> None:
        print(f"{what}: {', '.join(f'{way} {x:.2f} %' for way, x in zip(WAYS, found, strict=True))}", flush=True)

    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        cases = itertools.product(sizes, range(seeds), WAYS)
        found = pool.map(train, *zip(*((way, folder, *case, epochs) for *case, way in cases), strict=True))
        for labels in sizes:
            pairs = np.empty((seeds, len(WAYS)))
            for seed in range(seeds):
                pairs[seed] = [next(found) for _ in WAYS]
                show(f"{labels} labels, seed {seed}", pairs[seed])
            show(f"{labels} labels, mean", pairs.mean(axis=0))


def train(way: str, folder: pathlib.Path, labels: int, seed: int, epochs: int | None) -> float:
    """Trains in one of the WAYS, from the same weights on the same labels; returns the test accuracy in percent."""
    torch.set_num_threads(1)
    fewer = {} if epochs is None else {"training__epochs": epochs, "training__validate_after": 3 * epochs // 4}
    settings = settings_of("learn", initial_size=labels, seed=seed, **fewer)
    images, device = data.open_set(folder), resolve_device("auto", 0)
    split = data.split(images, settings)
    if way != "ours":
        return 100 * _train_plainly(images, split, settings, device)
    keep_freed_memory()
    with trainer(settings, images, split, device) as train_ours:
        return 100 * (train_ours().test_accuracy or 0.0)


def _train_plainly(images: ImageSet, split: Split, settings: Settings, device: torch.device) -> float:
    """Returns the test accuracy of the plain loop, which keeps the best of the same epochs."""
    torch.manual_seed(settings.seed)
    training = settings.training
    network = network_of("vgg16_bn", 0.25, seed=derive(settings.seed, "weights", 0))  # as a server's first model
    baseline = Baseline(network, images, normalisation_of(training, split.mean, split.std), device)
    best, weights = -1.0, network.state_dict()

    def keep(epoch: int) -> None:
        nonlocal best, weights
        if epoch > min(training.validate_after, training.epochs - 1):
            found = baseline.accuracy(split.validation)
            if found >= best:
                best, weights = found, copy.deepcopy(network.state_dict())

    baseline.train(split.initial, training, after_epoch=keep)
    network.load_state_dict(weights)
    return baseline.accuracy(split.test)


if __name__ == "__main__":
    sys.exit(main())
