"""How fast a worker selects: from mapped arrays and a model file to chosen ids."""

import dataclasses
import functools
import multiprocessing
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np
import torch

from aal.app import data
from aal.app.data import ImageSet, Split
from aal.app.eval import evaluate
from aal.app.models import build_model
from aal.app.server_train import Server
from aal.app.work_query import Worker
from aal.config.loading import resolve
from aal.coordination.messages import ModelRef, SelectionGrant, TrainingJob
from aal.storage.model_files import model_payload, save_model
from aal.strategies.assignment import RA_CHOICE
from aal.strategies.pool import CandidatePool, Outputs
from aal.strategies.strategy import ScoreStrategy, build_strategy, top_k
from aal.training.devices import computes_in_bf16, keep_freed_memory, resolve_device
from aal.training.images import ImageBank
from aal.training.inference import PIXELS_SCORED_AT_ONCE, ModelScorer
from aal.training.networks import Architecture
from bench import plain
from bench.bare import Bare
from bench.images import Source
from bench.options import Options
from bench.table import Row, alternate, rate_of

CASES = (("vgg16_bn", "quarter", 0.25, 45_000, 1000), ("vgg16", "full", 1.0, 4500, 100))
QUICK_CASES = (("vgg16_bn", "quarter", 0.25, 4500, 100), ("vgg16", "full", 1.0, 450, 10))
SIZES = (15_000, 45_000)  # of the shards whose memory is compared
CHOSEN = ((4500, 100), (45_000, 1000))  # of how many, how many
LEARNED, LEARNED_QUICK = 5000, 1000  # labels of the model whose choices are compared
MODEL = "models/model.pt"


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of scoring, in images of the shard a second, and how far bf16 chooses what float32 does."""
    torch.set_num_threads(options.threads)
    device = resolve_device("auto", 0)
    with tempfile.TemporaryDirectory(prefix="bench-score-") as name:
        run = pathlib.Path(name)
        (run / "models").mkdir()
        for case in QUICK_CASES if options.quick else CASES:
            yield from _rows(options, source, run, device, *case)
        yield from _memory(options, source, run)
        if source.real and computes_in_bf16(device):
            yield from _overlap(options, source, run, device)
        else:
            options.notes.append("score: overlap needs CIFAR-10 and a device that computes in bf16")


def worker_of(run: pathlib.Path, images: ImageSet, device: torch.device, strategy: str) -> Worker:
    """Returns a worker that scores on `device`."""
    return Worker(0, run, strategy, ImageBank(images.images, device), 0)


def turn_of(count: int, version: int = 0) -> SelectionGrant:
    """Returns the right to choose so many ids with the model of this bench."""
    return SelectionGrant(0, count, (ModelRef(version, MODEL, 0),))


def _publish(
    run: pathlib.Path, architecture: Architecture, images: ImageSet, normalisation: dict[str, list[float]]
) -> None:
    payload = model_payload(
        resolve({"data_type": "cifar-10"}, "bench"),
        state_dict=architecture.build(0).state_dict(),
        architecture=architecture.as_dict(),
        normalisation=normalisation,
        class_names=images.classes,
        images=images.folder.name,
        labels=0,
        epoch=0,
    )
    save_model(run / MODEL, payload)


def _nothing_labelled() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(0), np.arange(0)


def _rows(
    options: Options,
    source: Source,
    run: pathlib.Path,
    device: torch.device,
    model: str,
    width: str,
    factor: float,
    number: int,
    count: int,
) -> Iterator[Row]:
    normalisation = {"mean": [0.5] * 3, "std": [0.25] * 3}
    build = functools.partial(build_model, model, classes=10, channels=3, image_size=32, width=factor, seed=0)
    _publish(run, Architecture(model, 10, 3, 32, {"width": factor}), source.images, normalisation)
    worker = worker_of(run, source.images, device, "entropy")
    shard = np.arange(number)
    bare = Bare(build(), (PIXELS_SCORED_AT_ONCE[device.type] // 32**2, 3, 32, 32), 10, device)

    network = plain.with_plain_dropout(build()).to(device)

    def select_plainly() -> np.ndarray:
        found = plain.probabilities(network, source.images, shard, normalisation, device)
        return np.argsort(_scores("entropy", found))[-count:]

    def evaluate_all() -> object:
        return evaluate(network, worker.bank, shard, source.images.labels[shard], normalisation=normalisation)

    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: rate_of(number, lambda: worker.select(turn_of(count), shard, _nothing_labelled)),
        "instead": lambda: rate_of(number, select_plainly),
        "evaluation": lambda: rate_of(number, evaluate_all),
        "limit": bare.score_rate,
    }
    worker.select(
        turn_of(count), shard[: 2 * count], _nothing_labelled
    )  # loads the model, as a worker does once a version
    found = alternate(options.rounds, contenders)
    evaluation = found.pop("evaluation")
    yield Row(f"score/{model}/{width}/{number}", "images/s", **found)
    yield Row(f"score/{model}/{width}/{number}/evaluation", "images/s", evaluation, limit=found["limit"])


def _memory(options: Options, source: Source, run: pathlib.Path) -> Iterator[Row]:
    """Compares the memory that a selection takes from a small and from a large shard."""
    _publish(
        run, Architecture("vgg16_bn", 10, 3, 32, {"width": 0.25}), source.images, {"mean": [0.5] * 3, "std": [0.25] * 3}
    )
    small, large = (functools.partial(_in_own_process, run, source.images.folder, size) for size in SIZES)
    found = alternate(options.rounds, {"ours": large, "limit": small})
    yield Row(f"score/memory/{SIZES[1]}-instead-of-{SIZES[0]}", "MiB", **found)


def _in_own_process(run: pathlib.Path, images: pathlib.Path, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak_of_selection, args=(run, images, size, sender))
    process.start()
    sender.close()  # so that a child that dies is noticed
    peak = receiver.recv()
    process.join()
    return peak


def _peak_of_selection(run: pathlib.Path, images: pathlib.Path, size: int, sender: Connection) -> None:
    torch.set_num_threads(1)
    worker = worker_of(run, data.open_set(images), torch.device("cpu"), "entropy")
    worker.select(turn_of(1), np.arange(2), _nothing_labelled)  # what a first call costs once: the model, the libraries
    before, peak, done = anonymous_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.select(turn_of(100), np.arange(size), _nothing_labelled)
    done.set()
    watcher.join()
    sender.send(peak - before)


def anonymous_mib(pid: int | str = "self") -> float:
    """Returns the memory of a process that is no file's: what it has really allocated."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Anonymous:"))


def _overlap(options: Options, source: Source, run: pathlib.Path, device: torch.device) -> Iterator[Row]:
    """Tells how many of the ids that float32 scores choose are chosen by ours, and by bf16 alone."""
    split = _learn(options, source, run, device)
    pool = np.concatenate([split.initial, *split.shards])
    random = np.random.RandomState(0)
    scorer = ModelScorer(run / MODEL, ImageBank(source.images.images, device))
    exact, coarse = (scorer.outputs(pool, precision, False).probabilities for precision in ("float32", "auto"))
    for number, count in CHOSEN:
        draws = [random.permutation(len(pool))[:number] for _ in range(options.rounds)]
        for strategy in RA_CHOICE:
            worker = worker_of(run, source.images, device, strategy)
            shares: dict[str, list[float]] = {"ours": [], "instead": []}
            for places in draws:
                wanted, alone = (
                    pool[places][top_k(_scores(strategy, found[places]), count, np.random.RandomState(0))]
                    for found in (exact, coarse)
                )
                chosen = worker.select(turn_of(count), pool[places], _nothing_labelled)
                for name, found in (("ours", chosen), ("instead", alone)):
                    shares[name].append(100 * len(np.intersect1d(found, wanted)) / count)
            yield Row(f"score/overlap/{strategy}/{count}-of-{len(draws[0])}", "%", **shares, limit=[100.0])


class _Known:
    """Stands for a model whose probabilities are known."""

    is_coarse = False

    def __init__(self, probabilities: np.ndarray) -> None:
        self._outputs = Outputs(probabilities, probabilities, probabilities)

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Returns them."""
        return self._outputs

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Has no dropout."""
        raise NotImplementedError


def _scores(strategy: str, probabilities: np.ndarray) -> np.ndarray:
    known = CandidatePool(np.arange(len(probabilities)), [_Known(probabilities)], _nothing_labelled)
    built = build_strategy(strategy, {})
    assert isinstance(built, ScoreStrategy)
    return built.score(known)


def _learn(options: Options, source: Source, run: pathlib.Path, device: torch.device) -> Split:
    """Trains a model on CIFAR-10 with the modern recipe and puts it where the worker finds it."""
    keep_freed_memory()
    learned = LEARNED_QUICK if options.quick else LEARNED
    tree = {"data_type": "cifar-10", "models": "vgg16_bn", "width": 0.25, "initial_size": learned, "worker_num": 10}
    settings = resolve(tree, "bench")
    whole = data.split(source.images, settings)
    split = dataclasses.replace(whole, validation=whole.validation[:1000])
    server = Server(0, run, settings, source.images, split, ImageBank(source.images.images, device))
    ticket = TrainingJob(0, learned)
    trained = server.train(ticket, split.initial, source.images.labels[split.initial], 0.0, lambda: None)
    options.notes.append(
        f"score/overlap: a model of {100 * (trained.test_accuracy or 0):.1f} % test accuracy from {learned} labels; "
        "ours scores again in float32 what is near the cut, instead is bf16 alone"
    )
    (run / MODEL).unlink()
    (run / trained.path).rename(run / MODEL)
    return split
