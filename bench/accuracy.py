"""Whether speed costs accuracy: the modern recipe on CIFAR-10, our path against the plain float32 loop.

Not among the parts of `python -m bench`, for it takes long. Example:
  python -m bench.accuracy --labels 5000 25000 --data_dir data/downloads
"""

import argparse
import copy
import os
import pathlib
import statistics
import sys
import tempfile

import torch

import data
from aal.batches import ImageBank, normalisation_of
from aal.config import Settings
from aal.devices import keep_freed_memory, resolve_device
from aal.loading import resolve
from aal.messages import TrainingTicket
from bench import plain
from bench.images import cifar
from data import ImageSet, Split
from models import build_model
from server_train import Server


def main(words: list[str] | None = None) -> int:
    """Prints a line a training and the means; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--labels", type=int, nargs="+", default=[5000, 25_000], help="(default: 5000 25000)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=cores, help=f"CPU threads (default: {cores})")
    parser.add_argument("--data_dir", help="where CIFAR-10 is (default: data/downloads)")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    with cifar(arguments.data_dir) as source:
        if not source.real:
            print("error: accuracy needs CIFAR-10; give its folder with --data_dir", file=sys.stderr)
            return 2
        for labels in arguments.labels:
            found = [compare(source.images, labels, seed, arguments.epochs) for seed in range(arguments.seeds)]
            for seed, pair in enumerate(found):
                print(f"{labels} labels, seed {seed}: ours {pair[0]:.2f} %, plain loop {pair[1]:.2f} %", flush=True)
            ours, instead = (statistics.mean(column) for column in zip(*found, strict=True))
            print(f"{labels} labels, mean: ours {ours:.2f} %, plain loop {instead:.2f} %", flush=True)
    return 0


def compare(images: ImageSet, labels: int, seed: int, epochs: int | None) -> tuple[float, float]:
    """Trains twice from the same weights on the same labels; returns the test accuracies, ours first, in percent."""
    tree = {"data_type": "cifar-10", "initial_size": labels, "seed": seed, "models": "vgg16_bn", "width": 0.25}
    training = {} if epochs is None else {"epochs": epochs, "validate_after": 3 * epochs // 4}
    settings = resolve({**tree, "training": training}, "bench")
    split = data.split(images, settings)
    device = resolve_device("auto", 0)
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as folder:
        (pathlib.Path(folder) / "models").mkdir()
        server = Server(0, pathlib.Path(folder), settings, images, split, ImageBank(images.images, device))
        ticket = TrainingTicket(0, labels)
        trained = server.train(ticket, split.initial, images.labels[split.initial], 0.0, lambda: None)
    return 100 * (trained.test_accuracy or 0.0), 100 * _plainly(images, split, settings, device)


def _plainly(images: ImageSet, split: Split, settings: Settings, device: torch.device) -> float:
    """Returns the test accuracy of the plain loop, which keeps the best of the same epochs."""
    torch.manual_seed(settings.seed)
    training = settings.training
    normalisation = normalisation_of(training, split.mean, split.std)
    model = build_model("vgg16_bn", classes=10, channels=3, image_size=32, width=0.25, seed=settings.seed)
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
