"""How fast a server trains: its real path against a plain loop and against the bare passes."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import statistics
import tempfile
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aal.app import data
from aal.app.models import build_model
from aal.app.server_train import Server
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.messages import TrainingJob
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import ImageBank, normalisation_of
from aal.training.inference import PIXELS_SCORED_AT_ONCE
from bench import plain
from bench.bare import Bare
from bench.images import Source
from bench.options import Options
from bench.table import Row, alternate, rate_of

SCORED = 10  # of the images of a training, a tenth validate and another tenth test
# Width, labels, epochs and rounds: on two cores a single round of the largest takes twelve minutes.
CASES = (
    ("full", 1.0, 5000, 1, 3),
    ("full", 1.0, 40_000, 1, 1),
    ("quarter", 0.25, 5000, 4, 3),
    ("quarter", 0.25, 40_000, 1, 3),
)
# On a GPU as many epochs as a training really has: what it begins with would be most of a single one.
GPU_CASES = tuple(
    (name, width, labels, 20, 3) for name, width in (("full", 1.0), ("quarter", 0.25)) for labels in (5000, 40_000)
)
QUICK_CASES = (("full", 1.0, 640, 1, 1), ("quarter", 0.25, 2560, 2, 1))


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of training, in images learned from a second: epochs of the modern recipe, validation and test."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = resolve_device("auto", 0)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    cases = QUICK_CASES if options.quick else GPU_CASES if device.type == "cuda" else CASES
    with _own_cache():
        for width, images in itertools.groupby(cases, key=lambda case: case[:2]):
            bare = Bare(_network(width[1]), (64, 3, 32, 32), 10, device)
            yield from _compile_row(options, bare, width[0])
            for _, _, number, epochs, rounds in images:
                yield from _rows(source, bare, width, number, epochs, rounds, device)


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """Lets PyTorch compile anew: what an earlier run compiled would shorten the compilation."""
    with tempfile.TemporaryDirectory(prefix="bench-compile-", ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def _compile_row(options: Options, bare: Bare, width: str) -> Iterator[Row]:
    """Tells whether torch.compile pays, and lets the limit be the better of the two."""
    name = f"train/vgg16/{width}/uncompiled"
    cost = bare.compile()
    if cost is None:
        options.notes.append(f"{name}: PyTorch cannot compile here")
        return
    contenders = {"ours": lambda: bare.train_rate(), "instead": lambda: bare.train_rate(is_compiled=True)}
    found = alternate(options.rounds, contenders)
    eager, fast = (statistics.median(found[key]) for key in ("ours", "instead"))
    bare.is_compiled = fast > eager
    pays = "never pays: it is not faster"
    if bare.is_compiled:
        pays = f"pays after {cost / (1 / eager - 1 / fast):,.0f} images; so ours is compiled, and that not counted"
    options.notes.append(
        f"{name}: instead is compiled (with PyTorch's dropout, as training.compile has it), which takes {cost:.0f} s "
        f"and {pays}"
    )
    yield Row(name, "images/s", **found)


def settings_of(width: float, number: int, epochs: int, compiled: bool) -> Settings:
    """The modern recipe for some epochs on so many labels, validated after the last one."""
    return resolve(
        {
            **{"data_type": "cifar-10", "models": "vgg16", "width": width, "worker_num": 1, "query_batch": 1000},
            **{"initial_size": number, "val_size": number // SCORED, "server_train_threshold": 1000},
            "training": {"epochs": epochs, "validate_after": epochs - 1, "compile": compiled},
        },
        "bench",
    )


def _rows(
    source: Source,
    bare: Bare,
    width: tuple[str, float],
    number: int,
    epochs: int,
    rounds: int,
    device: torch.device,
) -> Iterator[Row]:
    settings = settings_of(width[1], number, epochs, bare.is_compiled)
    whole = data.split(source.images, settings, settings.worker_num)
    parts = dataclasses.replace(whole, test=whole.test[: number // SCORED])
    ids, labels = parts.initial, source.images.labels[parts.initial]
    normalisation = normalisation_of(settings.training, parts.mean, parts.std)
    bank = ImageBank(source.images.images, device)
    tickets = itertools.count()
    trained = epochs * number
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        (pathlib.Path(folder) / "models").mkdir()
        server = Server(0, pathlib.Path(folder), settings, source.images, parts, bank)

        def ours() -> float:
            ticket = TrainingJob(next(tickets), number)
            return rate_of(trained, lambda: server.train(ticket, ids, labels, 0.0, lambda: None))

        def instead() -> float:
            model = plain.with_plain_dropout(_network(width[1]))

            def loop() -> None:
                plain.train(
                    model, source.images, ids,
                    training=settings.training, normalisation=normalisation, device=device,
                )  # fmt: skip
                for scored in (parts.validation, parts.test):
                    plain.accuracy(model, source.images, scored, normalisation, device)

            return rate_of(trained, loop)

        scorer = Bare(_network(width[1]), (PIXELS_SCORED_AT_ONCE[device.type] // 32**2, 3, 32, 32), 10, device)

        def limit() -> float:
            scored = len(parts.validation) + len(parts.test)
            return trained / (trained / bare.train_rate() + scored / scorer.score_rate())

        if device.type == "cuda" or bare.is_compiled:
            ours()  # what a first training costs once: compiling, or the search for the fastest kernels
        found = alternate(rounds, {"ours": ours, "instead": instead, "limit": limit})
    name = f"train/vgg16/{width[0]}/{number}"
    yield Row(name, "images/s", **found)
    if device.type == "cuda":
        flop = flop_of(_network(width[1])) / 1e12
        yield Row(f"{name}/flops", "TFLOP/s", **{key: [flop * rate for rate in rates] for key, rates in found.items()})


def _network(width: float) -> nn.Module:
    return build_model("vgg16", classes=10, channels=3, image_size=32, width=width, seed=0)


def flop_of(network: nn.Module) -> float:
    """Returns the floating-point operations of a network's forward and backward pass over one image."""
    with FlopCounterMode(display=False) as counter:
        network.train()(torch.zeros(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 2
