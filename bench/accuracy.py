"""Whether speed costs accuracy: the modern recipe on CIFAR-10, our path against the plain float32 loop.

Not among the parts of `python -m bench`, for it takes long. Example:
  python -m bench.accuracy --labels 5000 25000 --data_dir data/downloads
  python -m bench.accuracy models=vgg16 width=1 --ours training.batch_size=512 training.learning_rate=0.03
"""

import functools
import itertools
import multiprocessing
import pathlib
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from aal.app import data
from aal.config.cores import core_count
from aal.config.errors import UserError
from aal.config.seeding import derive
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import normalisation_of
from bench.contenders import Baseline
from bench.harness import cifar, network_of, trainer
from bench.rows import at_least_one, parser_of
from bench.settings import settings_of

WAYS = ("ours", "plain loop")
LINE = "{}: ours {:.2f} %, plain loop {:.2f} %"
MOST_LABELS = 45_000  # the training images but those that validate


def main(words: list[str] | None = None) -> int:
    """Prints a line for each pair of trainings and the means; returns the exit code."""
    parser = parser_of("bench.accuracy", __doc__)
    some = functools.partial(at_least_one, most=MOST_LABELS)
    parser.add_argument("--labels", type=some, nargs="+", default=[5000, 25_000], help="(default: 5000 25000)")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="(default: 3)")
    parser.add_argument("both", nargs="*", metavar="key=value", help="settings of both ways")
    parser.add_argument("--ours", nargs="+", default=[], metavar="key=value", help="settings of ours alone")
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
            both = _changes(arguments.both, arguments.epochs)
            ways = {"ours": {**both, **_changes(arguments.ours)}, "plain loop": both}
            _compare(source.images.folder, arguments.labels, arguments.seeds, ways, at_once)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _changes(words: list[str], epochs: int | None = None) -> dict[str, str]:
    """Returns settings as `settings_of` takes them; the last quarter of the epochs is validated."""
    found = dict(word.partition("=")[::2] for word in words)
    if epochs is not None:
        found |= {"training.epochs": str(epochs), "training.validate_after": str(3 * epochs // 4)}
    return {key.replace(".", "__"): value for key, value in found.items()}


def _compare(folder: pathlib.Path, sizes: list[int], seeds: int, ways: dict[str, dict[str, str]], jobs: int) -> None:
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        cases = [(*case, folder, ways[case[-1]]) for case in itertools.product(sizes, range(seeds), WAYS)]
        found = pool.map(train, *zip(*cases, strict=True))
        for labels in sizes:
            pairs = []
            for seed in range(seeds):
                pairs.append([next(found) for _ in WAYS])
                print(LINE.format(f"{labels} labels, seed {seed}", *pairs[-1]), flush=True)
            print(LINE.format(f"{labels} labels, mean", *np.mean(pairs, axis=0)), flush=True)


def train(labels: int, seed: int, way: str, folder: pathlib.Path, changes: dict[str, str]) -> float:
    """Trains in one of the WAYS, from the same weights on the same labels; returns the test accuracy in percent."""
    torch.set_num_threads(1)
    settings = settings_of("learn", initial_size=labels, seed=seed, **changes)
    images, device = data.open_set(folder), resolve_device("auto")
    split = data.split(images, settings, settings.worker_num)
    if way == "ours":
        keep_freed_memory()
        with trainer(settings, images, split, device) as train_ours:
            return 100 * (train_ours().test_accuracy or 0.0)
    torch.manual_seed(seed)
    network = network_of(
        settings.models[0], settings.width, seed=derive(seed, "weights", 0)
    )  # as a server's first model
    baseline = Baseline(network, images, normalisation_of(settings.training, split.mean, split.std), device)
    baseline.train(split.initial, split.validation, settings.training)
    return 100 * baseline.accuracy(split.test)


if __name__ == "__main__":
    sys.exit(main())
