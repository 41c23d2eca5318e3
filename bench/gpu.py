"""What a GPU makes of trainings and selections with the full VGG-16; ends within three minutes."""

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from aal.app.server_train import fit
from aal.config.settings import TrainingSettings
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import resolve_device
from aal.training.images import ImageBank
from aal.training.inference import predict
from aal.training.trainer import TrainingTask
from bench.contenders import matmul_rate, training_flops
from bench.harness import GREY, Selector, Source, network_of, publish
from bench.rows import Options, Row, alternate, rate_of
from bench.settings import settings_of

NETWORK, WIDTH = "vgg16", 1.0
EAGER, COMPILED = (64, 128, 256, 512, 1024, 2048), (64, 512, 1024)  # images a step
STEPS, WARM_UP = 60, 15  # of a measurement; those that do not count
SHARD, CHOSEN = 4500, 100
SCORED, REPEATED = 50, 20  # images whose scores are compared; steps of a training that is repeated


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of a GPU: speed by batch size, precision, repetition, and the time of a selection."""
    device = resolve_device("auto")
    if device.type == "cpu":
        options.note("gpu/missing")
        return
    torch.backends.cudnn.benchmark = True
    bank = ImageBank(source.images.images, device)
    yield from _steps(options, source, bank)
    yield _exactness(source, bank)
    yield from _repetition(options, source, bank)
    yield from _selections(options, source, device)


def _steps(options: Options, source: Source, bank: ImageBank) -> Iterator[Row]:
    limit = matmul_rate(bank.device) / training_flops(network_of(NETWORK, WIDTH))
    compiled = COMPILED[-1:] if options.quick else COMPILED
    for batch in EAGER:
        contenders = {"ours": partial(step_rate, network_of(NETWORK, WIDTH), source, bank, _recipe(batch))}
        if batch in compiled:
            contenders["instead"] = contenders["ours"]
            contenders["ours"] = partial(step_rate, network_of(NETWORK, WIDTH), source, bank, _recipe(batch, True))
            contenders["ours"]()  # compiles
        yield Row(f"gpu/train/{batch}", "images/s", **alternate(options.rounds, contenders), limit=[limit])
    options.note("gpu/train")


def _recipe(batch: int, is_compiled: bool = False, precision: str = "auto") -> TrainingSettings:
    words = {"batch_size": batch, "compile": is_compiled, "precision": precision, "epochs": 1, "learning_rate": 0.01}
    return settings_of("train", **{f"training__{key}": value for key, value in words.items()}).training


def step_rate(model: nn.Module, source: Source, bank: ImageBank, recipe: TrainingSettings) -> float:
    """Returns how many images a second a server's training gets through, once it runs."""
    began = [0.0]
    left = itertools.count(-WARM_UP)

    def beat() -> None:
        if next(left) == 0:
            _wait(bank.device)
            began[0] = time.perf_counter()

    _train(model, source, bank, recipe, STEPS, beat)
    _wait(bank.device)
    return (STEPS - WARM_UP) * recipe.batch_size / (time.perf_counter() - began[0])


def _train(
    model: nn.Module,
    source: Source,
    bank: ImageBank,
    recipe: TrainingSettings,
    steps: int,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, torch.Tensor]:
    ids = np.resize(np.arange(len(source.images.labels)), steps * recipe.batch_size)
    labels = np.asarray(source.images.labels)[ids]
    return fit(model, TrainingTask(bank, ids, labels, recipe, GREY, seed=0, heartbeat=beat)).state_dict


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _exactness(source: Source, bank: ImageBank) -> Row:
    """How far scores on the GPU are from those of the CPU, as a share of their norm, in parts of a million."""
    network, ids = network_of(NETWORK, WIDTH), np.arange(SCORED)
    score = partial(predict, ids=ids, normalisation=GREY)
    exact = score(network, ImageBank(source.images.images[:SCORED], torch.device("cpu")))
    found = {
        precision: score(fuse_batch_norm(network).to(bank.device), bank, precision=precision)
        for precision in ("float32", "tf32")
    }
    errors = {key: [1e6 * ((scores - exact).norm() / exact.norm()).item()] for key, scores in found.items()}
    return Row("gpu/float32/error", "ppm", errors["float32"], instead=errors["tf32"])


def _repetition(options: Options, source: Source, bank: ImageBank) -> Iterator[Row]:
    """Whether a training gives the same weights again, as the simulated engine sets PyTorch up."""
    torch.backends.cudnn.deterministic = True
    for precision in ("auto", "float32"):
        recipe = _recipe(64, precision=precision)
        first, again = (_train(network_of(NETWORK, WIDTH), source, bank, recipe, REPEATED) for _ in range(2))
        same = [100 * float(np.mean([torch.equal(first[name], again[name]) for name in first]))]
        yield Row(f"gpu/repeated/{precision}", "%", same, limit=[100.0])
    torch.backends.cudnn.deterministic = False
    options.note("gpu/repeated")


def _selections(options: Options, source: Source, device: torch.device) -> Iterator[Row]:
    """The milliseconds of a selection with a model that is known already, and with one that was just published."""
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        selector, numbers = Selector(pathlib.Path(name), source.images, device), itertools.count()
        shard = np.arange(SHARD)

        def select(path: str) -> float:
            return 1e3 / rate_of(1, lambda: selector.select(CHOSEN, shard, path=path))

        def new() -> float:
            path = f"models/new-{next(numbers)}.pt"
            publish(selector.run, path, NETWORK, WIDTH, seed=1)
            return select(path)

        new()  # the search for the fastest kernels
        yield Row("gpu/selection/new-model", "ms", [new() for _ in range(options.rounds)])
        publish(selector.run, "models/known.pt", NETWORK, WIDTH)
        select("models/known.pt")
        yield Row("gpu/selection/known-model", "ms", [select("models/known.pt") for _ in range(options.rounds)])
