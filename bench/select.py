"""How fast strategies choose from outputs that are there, and from a network; and what memory a million rows take."""

import multiprocessing
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from aal.app.work_query import Worker
from aal.coordination.messages import ModelRef, SelectionGrant
from aal.strategies.pool import CandidatePool
from aal.strategies.strategy import build_strategy, select_checked
from aal.training.devices import resolve_device
from aal.training.outputs import Outputs
from bench import select_baselines as baselines
from bench.contenders import Baseline, Roofline
from bench.harness import GREY, NO_IDS, NO_LABELS, Selector, Source, network_of, publish
from bench.rows import Options, Row, alternate
from bench.score import anonymous_mib

CLASSES, LABELLED = 10, 1000
SIZE, QUICK_SIZE = (45_000, 512, 1000), (4500, 128, 100)  # candidates, numbers of an embedding, ids to choose
BALD_SIZE, QUICK_BALD_SIZE = (4500, 20, 50), (450, 10, 10)  # candidates, passes, ids to choose
PASSES_SIZE, QUICK_PASSES_SIZE = (2000, 10, 100), (200, 4, 10)  # images, passes or members, ids to choose
MILLION, QUICK_MILLION = (1_000_000, 64, 1000), (50_000, 16, 100)
NETWORK = ("vgg16", 0.25)
SAMPLES = 1000  # labels of a batch that BatchBALD looks at


@dataclass(frozen=True)
class Told:
    """A model whose outputs are given; see `aal.strategies.pool.Scorer`."""

    embeddings: np.ndarray
    probabilities: np.ndarray
    passes: np.ndarray | None = None
    is_coarse = False

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Returns what is given; all of it without a copy where all is asked for, as a mapped file gives it."""
        first, last = int(ids[0]), int(ids[-1])
        place: Any = slice(first, last + 1) if last - first == len(ids) - 1 else ids
        return Outputs(self.probabilities[place], self.probabilities[place], self.embeddings[place])

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Returns the given passes."""
        assert self.passes is not None
        return self.passes[:passes, ids]

    def votes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the class of the highest given probability, as the vote of one snapshot."""
        return self.probabilities[ids].argmax(axis=1)[None]

    def pool(self, candidates: int) -> CandidatePool:
        """Returns a pool of the first ones; the others are labelled."""
        known = np.arange(candidates, len(self.embeddings))
        return CandidatePool(np.arange(candidates), [self], lambda: (known, known % CLASSES))


def told(candidates: int, d: int, labelled: int = LABELLED, passes: int = 0) -> Told:
    """Makes embeddings around a hundred points, and what a random output layer says of them."""
    random, number = np.random.default_rng(0), candidates + labelled
    embeddings = random.standard_normal((number, d), np.float32)
    embeddings += random.standard_normal((100, d), np.float32)[random.integers(100, size=number)]
    np.maximum(embeddings, 0, out=embeddings)
    layer = random.standard_normal((d, CLASSES), np.float32) * np.float32(2 / d**0.5)
    masks = 2 * random.integers(2, size=(passes, d)).astype(np.float32)  # of dropout
    softmax = partial(torch.softmax, dim=1)
    dropped = [softmax(torch.from_numpy((embeddings * mask) @ layer)).numpy() for mask in masks]
    plain = softmax(torch.from_numpy(embeddings @ layer)).numpy()
    return Told(embeddings, plain, np.stack(dropped) if passes else None)


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of selection, in seconds for a batch."""
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        yield from _from_outputs(options)
        yield from _batchbald(options)
        yield from _with_passes(options, source)
    yield from _memory(options)
    options.note("select")


def _seconds(act: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    act()
    return time.perf_counter() - started_at


def _choose(name: str, model: Told, candidates: int, count: int, choices: dict[str, Any]) -> np.ndarray:
    pool = model.pool(candidates)
    return select_checked(build_strategy(name, choices), name, pool, count, np.random.RandomState(0))


def _row(options: Options, name: str, size: str, **contenders: Callable[[], float]) -> Row:
    contenders["ours"]()  # what a first call costs once
    return Row(f"select/{name}/{size}", "s", **alternate(options.rounds, contenders))


def _from_outputs(options: Options) -> Iterator[Row]:
    """Times strategies that look at embeddings; what others do is timed for some ids and taken for all."""
    candidates, d, count = QUICK_SIZE if options.quick else SIZE
    model = told(candidates, d)
    instead = {
        "coreset": partial(baselines.per_choice, baselines.coreset(model.embeddings, LABELLED), count, more=22),
        "badge": partial(baselines.per_choice, baselines.badge(model.embeddings, model.probabilities, LABELLED), count),
        "typiclust": partial(_seconds, partial(baselines.typiclust, model.embeddings, candidates, count)),
        "cluster_margin": partial(
            _seconds, partial(baselines.cluster_margin, model.embeddings, model.probabilities, candidates, count)
        ),
    }
    rows = torch.from_numpy(model.embeddings)
    for name, other in instead.items():
        products = partial(getattr(baselines, f"{name}_products"), rows, count, LABELLED)
        ours = partial(_choose, name, model, candidates, count, {})
        yield _row(
            options, name, f"{count}-of-{candidates}", ours=partial(_seconds, ours), instead=other,
            limit=partial(_seconds, products),
        )  # fmt: skip


def _batchbald(options: Options) -> Iterator[Row]:
    candidates, passes, count = QUICK_BALD_SIZE if options.quick else BALD_SIZE
    model = told(candidates, 64, labelled=0, passes=passes)
    assert model.passes is not None
    ours = partial(_choose, "batchbald", model, candidates, count, {"passes": passes, "samples": SAMPLES})
    yield _row(
        options, "batchbald", f"{count}-of-{candidates}", ours=partial(_seconds, ours),
        instead=partial(baselines.per_choice, baselines.batchbald(model.passes, SAMPLES), count, few=5, more=9),
        limit=partial(_seconds, partial(baselines.batchbald_products, torch.from_numpy(model.passes), SAMPLES, count)),
    )  # fmt: skip


def _with_passes(options: Options, source: Source) -> Iterator[Row]:
    """Times strategies that need several passes of a network, with these passes."""
    number, passes, count = QUICK_PASSES_SIZE if options.quick else PASSES_SIZE
    device, ids = resolve_device("auto"), np.arange(number)
    plain = Baseline(network_of(*NETWORK), source.images, GREY, device)
    limit = Roofline(network_of(*NETWORK), device)
    with tempfile.TemporaryDirectory(prefix="bench-select-") as name:
        folder = pathlib.Path(name)
        models = tuple(ModelRef(version, f"models/{version}.pt", 0) for version in range(passes))
        for model in models:
            publish(folder, model.path, *NETWORK, seed=model.version)
        bank = Selector(folder, source.images, device).bank
        for strategy, choices, granted in (
            ("bald", {"passes": passes}, models[:1]),
            ("committee", {"members": passes}, models),
        ):
            worker = Worker(0, folder, strategy, bank, 0, choices)
            grant = SelectionGrant(0, count, granted)
            ours = partial(worker.select, grant, ids, lambda: NO_LABELS, lambda: NO_IDS)
            instead = partial(getattr(baselines, strategy), plain, ids, passes, count)
            yield _row(
                options, strategy, f"{count}-of-{number}-in-{passes}-passes", ours=partial(_seconds, ours),
                instead=partial(_seconds, instead), limit=lambda: number * passes / limit.score_rate(),
            )  # fmt: skip


def _memory(options: Options) -> Iterator[Row]:
    """Measures the memory that a selection from many embeddings takes beside these, each in a process of its own."""
    candidates, d, count = QUICK_MILLION if options.quick else MILLION
    for name in ("coreset", "cluster_margin"):
        seconds, mib = memory_of(name, candidates, d, count, options.threads)
        yield Row(f"select/{name}/{count}-of-{candidates}", "s", [seconds])
        yield Row(f"select/{name}/{count}-of-{candidates}/memory", "MiB", [mib], limit=[1024.0])


def memory_of(name: str, candidates: int, d: int, count: int, threads: int) -> tuple[float, float]:
    """Returns the seconds of a selection in its own process, and the MiB it takes at most beside what it is given."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_own_memory, name, candidates, d, count, threads).result()


def _own_memory(name: str, candidates: int, d: int, count: int, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    small = told(500, 8)
    _choose(name, small, 500, 10, {})  # what a first call costs once
    model, over = told(candidates, d), threading.Event()
    held = [anonymous_mib()]

    def watch() -> None:
        while not over.wait(0.01):
            held.append(anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    seconds = _seconds(partial(_choose, name, model, candidates, count, {}))
    over.set()
    thread.join()
    return seconds, max(held) - held[0]
