"""How fast a server trains: its real path against a plain loop and against the bare passes."""

import dataclasses
import itertools
import os
import statistics
import tempfile
import unittest.mock
from collections.abc import Iterator
from functools import partial

import torch

from aal.app import data
from aal.config.settings import Settings
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import normalisation_of
from bench.contenders import Baseline, Roofline, matmul_rate, training_flops
from bench.harness import Source, network_of, trainer
from bench.rows import Options, Row, alternate, rate_of
from bench.settings import settings_of

SCORED = 10  # of the images of a training, a tenth validate and another tenth test
# Width, labels, epochs and rounds: on two cores a single round of the largest takes twelve minutes.
CASES = (
    ("full", 1.0, 5000, 1, 3),
    ("full", 1.0, 40_000, 1, 1),
    ("quarter", 0.25, 5000, 4, 3),
    ("quarter", 0.25, 40_000, 1, 3),
)
# On a GPU more epochs: what a training begins with would be most of a single one; and a batch that fills it.
GPU_CASES = tuple((name, width, labels, 100_000 // labels, 1) for name, width, labels, _, _ in CASES)
GPU_BATCH = 512
QUICK_CASES = (("full", 1.0, 640, 1, 1), ("quarter", 0.25, 2560, 2, 1))


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of training, in images learned from a second: epochs of the modern recipe, validation and test."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = resolve_device("auto")
    torch.backends.cudnn.benchmark = device.type == "cuda"
    cases = QUICK_CASES if options.quick else GPU_CASES if device.type == "cuda" else CASES
    # PyTorch compiles anew: what an earlier run compiled would shorten the compilation.
    with (
        tempfile.TemporaryDirectory(prefix="bench-compile-", ignore_cleanup_errors=True) as cache,
        unittest.mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache),
    ):
        for (name, width), sizes in itertools.groupby(cases, key=lambda case: case[:2]):
            batch = GPU_BATCH if device.type == "cuda" else 64
            roofline = Roofline(network_of("vgg16", width), device, number=batch)
            yield from _compile_row(options, roofline, name)
            for _, _, number, epochs, rounds in sizes:
                sizes_of = {"width": width, "initial_size": number, "val_size": number // SCORED}
                recipe = {"training__epochs": epochs, "training__validate_after": epochs - 1}  # once, after the last
                fast = {"training__batch_size": batch, "training__compile": roofline.is_compiled}
                settings = settings_of("train", **sizes_of, **recipe, **fast)
                yield from _rows(source, roofline, f"train/vgg16/{name}/{number}", settings, rounds, device)


def _compile_row(options: Options, roofline: Roofline, width: str) -> Iterator[Row]:
    """Measures whether torch.compile pays, and lets the limit be the better of the two."""
    name, cost = f"train/vgg16/{width}/uncompiled", roofline.compile()
    if cost is None:
        options.note("compile-missing", name=name)
        return
    contenders = {"ours": roofline.train_rate, "instead": lambda: roofline.train_rate(is_compiled=True)}
    found = alternate(options.rounds, contenders)
    eager, fast = (statistics.median(found[key]) for key in ("ours", "instead"))
    roofline.is_compiled = fast > eager
    pays = "never pays: it is not faster"
    if roofline.is_compiled:
        pays = f"pays after {cost / (1 / eager - 1 / fast):,.0f} images; so ours is compiled, and that not counted"
    options.note("compile", name=name, cost=cost, pays=pays)
    yield Row(name, "images/s", **found)


def _rows(
    source: Source, roofline: Roofline, name: str, settings: Settings, rounds: int, device: torch.device
) -> Iterator[Row]:
    split = data.split(source.images, settings, settings.worker_num)
    split = dataclasses.replace(split, test=split.test[: settings.initial_size // SCORED])
    normalisation = normalisation_of(settings.training, split.mean, split.std)
    trained, scored = settings.training.epochs * settings.initial_size, len(split.validation) + len(split.test)
    bare = Roofline(network_of("vgg16", settings.width), device)

    def instead() -> None:
        plain = Baseline(network_of("vgg16", settings.width), source.images, normalisation, device)
        plain.train(split.initial, split.validation, settings.training)
        plain.accuracy(split.test)

    def limit() -> float:
        return trained / (trained / roofline.train_rate(is_compiled=roofline.is_compiled) + scored / bare.score_rate())

    with trainer(settings, source.images, split, device) as train:
        if device.type == "cuda" or roofline.is_compiled:
            train()  # what a first training costs once: compiling, or the search for the fastest kernels
        ours, plain = partial(rate_of, trained, train), partial(rate_of, trained, instead)
        found = alternate(rounds, {"ours": ours, "instead": plain, "limit": partial(limit)})
    yield Row(name, "images/s", **found)
    if device.type == "cuda":
        flop = training_flops(network_of("vgg16", settings.width)) / 1e12
        rates = {key: [flop * rate for rate in found[key]] for key in ("ours", "instead")}
        yield Row(f"{name}/flops", "TFLOP/s", **rates, limit=[matmul_rate(device) / 1e12])
