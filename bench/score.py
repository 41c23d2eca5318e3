"""How fast a worker selects: from mapped arrays and a model file to chosen ids."""

import dataclasses
import itertools
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from aal.app import data
from aal.app.eval import evaluate
from aal.config.registry import STRATEGIES
from aal.strategies.assignment import RA_CHOICE
from aal.strategies.strategy import top_k
from aal.training.devices import computes_in_bf16, keep_freed_memory, resolve_device
from bench.contenders import Baseline, Roofline
from bench.harness import GREY, MODEL, Selector, Source, network_of, publish, trainer
from bench.rows import Options, Row, alternate, rate_of
from bench.settings import settings_of

CASES = (("vgg16_bn", "quarter", 0.25, 45_000, 1000), ("vgg16", "full", 1.0, 4500, 100))
QUICK_CASES = (("vgg16_bn", "quarter", 0.25, 4500, 100), ("vgg16", "full", 1.0, 450, 10))
REPEAT_S = 2.0  # of a contender, unless the bench is quick
NEW_MODEL = ("vgg16", 1.0, 450, 10)  # network, width, images of the shard, ids to choose
SIZES = (15_000, 45_000)  # of the shards whose memory is compared
CHOSEN = ((4500, 100), (45_000, 1000))  # of how many, how many
LEARNED, LEARNED_QUICK = 5000, 1000  # labels of the model whose choices are compared


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of scoring, in images of the shard a second, and how far bf16 chooses what float32 does."""
    torch.set_num_threads(options.threads)
    device = resolve_device("auto")
    with tempfile.TemporaryDirectory(prefix="bench-score-") as name:
        selector = Selector(pathlib.Path(name), source.images, device)
        for case in QUICK_CASES if options.quick else CASES:
            yield from _rows(options, selector, *case)
        yield from _new_model(options, selector)
        yield from _memory(options, selector)
        if source.real and computes_in_bf16(device):
            yield from _overlap(options, selector)
        else:
            options.note("score/overlap-missing")


def _rows(
    options: Options, selector: Selector, model: str, width: str, factor: float, number: int, count: int
) -> Iterator[Row]:
    images, device, shard = selector.images, selector.device, np.arange(number)
    publish(selector.run, MODEL, model, factor)
    baseline = Baseline(network_of(model, factor), images, GREY, device)
    rate = partial(rate_of, number, seconds=0.0 if options.quick else REPEAT_S)
    selector.select(count, shard)  # loads the model, as a worker does once a version
    score = partial(evaluate, baseline.model, selector.bank, shard, images.labels[shard], normalisation=GREY)
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: rate(lambda: selector.select(count, shard)),
        "instead": lambda: rate(lambda: baseline.choose(shard, count)),
        "evaluation": lambda: rate(score),
        "limit": Roofline(network_of(model, factor), device).score_rate,
    }
    found = alternate(options.rounds, contenders)
    evaluation = found.pop("evaluation")
    yield Row(f"score/{model}/{width}/{number}", "images/s", **found)
    yield Row(f"score/{model}/{width}/{number}/evaluation", "images/s", evaluation, limit=found["limit"])


def _new_model(options: Options, selector: Selector) -> Iterator[Row]:
    """Times the first selection with a full-width model that was just published, a new file each time."""
    (model, width, number, count), numbers = NEW_MODEL, itertools.count()
    shard, limit = np.arange(number), Roofline(network_of(model, width), selector.device).score_rate

    def ours() -> float:
        path = f"models/new-{next(numbers)}.pt"
        publish(selector.run, path, model, width, seed=1)
        per_s = rate_of(1, lambda: selector.select(count, shard, path=path))
        (selector.run / path).unlink()
        return 1e3 / per_s

    def instead() -> float:
        path = selector.run / "weights.pt"
        torch.save(network_of(model, width).state_dict(), path)

        def select() -> None:
            network = network_of(model, width)
            network.load_state_dict(torch.load(path, weights_only=True))
            Baseline(network, selector.images, GREY, selector.device).choose(shard, count)

        return 1e3 / rate_of(1, select)

    ours()  # what a first selection costs once in a process
    found = alternate(options.rounds, {"ours": ours, "instead": instead, "limit": lambda: 1e3 * number / limit()})
    options.note("score/new-model", number=number)
    yield Row(f"score/new-model/{model}-full", "ms", **found)


def _memory(options: Options, selector: Selector) -> Iterator[Row]:
    """Compares the memory that a selection takes from a small and from a large shard."""
    publish(selector.run, MODEL, "vgg16_bn", 0.25)

    def peak(size: int) -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_peak_of_selection, selector.run, selector.images.folder, size).result()

    found = alternate(options.rounds, {"ours": partial(peak, SIZES[1]), "limit": partial(peak, SIZES[0])})
    yield Row(f"score/memory/{SIZES[1]}-instead-of-{SIZES[0]}", "MiB", **found)


def _peak_of_selection(run: pathlib.Path, images: pathlib.Path, size: int) -> float:
    """Returns the MiB that a selection takes at most, in a process of its own."""
    torch.set_num_threads(1)
    selector = Selector(run, data.open_set(images), torch.device("cpu"))
    selector.select(1, np.arange(2))  # what a first call costs once: the model, the libraries
    held = [anonymous_mib()]
    with ThreadPoolExecutor(1) as thread:
        selection = thread.submit(selector.select, 100, np.arange(size))
        while not selection.done():
            held.append(anonymous_mib())
            time.sleep(0.01)
    return max(held) - held[0]


def anonymous_mib() -> float:
    """Returns the memory of this process that is no file's: what it has really allocated."""
    text = pathlib.Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Anonymous:"))


def _overlap(options: Options, selector: Selector) -> Iterator[Row]:
    """Measures how many ids that float32 scores choose are chosen by ours, and by bf16 alone, with a trained model."""
    keep_freed_memory()
    learned = LEARNED_QUICK if options.quick else LEARNED
    settings = settings_of("learn", initial_size=learned, worker_num=10)
    split = data.split(selector.images, settings, settings.worker_num)
    split = dataclasses.replace(split, validation=split.validation[:1000])
    with trainer(settings, selector.images, split, selector.device, selector.run) as train:
        trained = train()
    (selector.run / trained.path).replace(selector.run / MODEL)  # where the worker finds it
    options.note("score/overlap", accuracy=100 * (trained.test_accuracy or 0), labels=learned)
    ids, random = np.concatenate([split.initial, *split.shards]), np.random.RandomState(0)
    exact, coarse = (selector.candidates(ids, precision) for precision in ("float32", "auto"))
    for number, count in CHOSEN:
        draws = [random.permutation(len(ids))[:number] for _ in range(options.rounds)]
        for strategy in RA_CHOICE:
            scores = [STRATEGIES.load(strategy)().score(pool) for pool in (exact, coarse)]
            shares: dict[str, list[float]] = {"ours": [], "instead": []}
            for places in draws:
                wanted, alone = (ids[places][top_k(found[places], count, random)] for found in scores)
                chosen = selector.select(count, ids[places], strategy)
                for name, found in (("ours", chosen), ("instead", alone)):
                    shares[name].append(100 * len(np.intersect1d(found, wanted)) / count)
            yield Row(f"score/overlap/{strategy}/{count}-of-{len(draws[0])}", "%", **shares, limit=[100.0])
