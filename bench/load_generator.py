"""A hub in its own process, and the processes that put load on it: offers, trainings, annotators, busy cores."""

import asyncio
import contextlib
import itertools
import multiprocessing
import pathlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from aal.annotators.simulated import Annotator, Desk, annotate_all
from aal.config.errors import Stopped
from aal.config.settings import Settings
from aal.coordination.clock import WallClock
from aal.coordination.messages import QueryBatch, TrainedModel
from aal.coordination.parts import Parts
from aal.engines.local.engine import HubManager
from bench.settings import settings_of

WORKERS, BATCH, ANNOTATORS = 64, 100, 1000  # as in settings.yaml
CONTEXT = multiprocessing.get_context("forkserver")
LABEL_S = 0.05  # what a client takes for a label


class ServedHub(NamedTuple):
    """A hub in its own process `pid`, with the settings of its run and the moment at which its clock began."""

    hub: Any
    settings: Settings
    origin: float
    pid: int


@contextlib.contextmanager
def served_hub(shard: int, bound: int | None = None) -> Iterator[ServedHub]:
    """Gives a hub with so many ids for each worker, and so much room in S, that records to a temporary folder."""
    settings = settings_of("hub", worker_query_num=shard // BATCH)
    settings = settings.model_copy(update={} if bound is None else {"query_pool_size": bound})
    first, total = np.arange(10), 10 + WORKERS * shard
    shards = list(np.arange(10, total).reshape(WORKERS, shard))
    parts = Parts(10, np.arange(total) % 10, first[:4], first[4:6], first[6:], shards)
    with tempfile.TemporaryDirectory(prefix="bench-hub-") as folder, HubManager(ctx=CONTEXT) as manager:
        origin, path = time.monotonic(), pathlib.Path(folder) / "run.db"
        hub = manager.hub(settings, parts, path, origin, {}, None)  # type: ignore[attr-defined]
        yield ServedHub(hub, settings, origin, manager._process.pid)  # type: ignore[attr-defined]
        hub.close("finished")


@contextlib.contextmanager
def running(*calls: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Starts a process for each function with its arguments; terminates them with the block."""
    processes = [CONTEXT.Process(target=target, args=args) for target, *args in calls]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def offer_and_train(hub: Any, origin: float, workers: Sequence[int] = range(WORKERS)) -> None:
    """Makes the offers of some workers and, with the first of them, the trainings of a server, which take no time."""
    clock, chance = WallClock(origin), np.random.RandomState(0)
    left = {worker: hub.remaining(worker) for worker in workers}
    start = dict.fromkeys(workers, 0)

    def train() -> bool:
        job = hub.ticket(0) if 0 in left else None
        if job is not None:
            hub.publish(TrainedModel(job.number, 0, "none", "none", 1, clock.now(), None, chance.rand()))
        return job is not None

    def offer(worker: int) -> bool:
        grant = hub.turn(worker) if start[worker] < len(left[worker]) else None
        if grant is None:
            return False
        ids = left[worker][start[worker] : start[worker] + grant.count].tolist()
        start[worker] += len(ids)
        hub.offer(QueryBatch(worker, grant.batch, ids, "random", grant.model.version, clock.now()))
        return True

    with contextlib.suppress(Stopped):
        while True:
            if not train() + sum(offer(worker) for worker in chance.permutation(workers).tolist()):
                time.sleep(0.002)


def annotate_at_once(settings: Settings, hub: Any, origin: float) -> None:
    """Lets ANNOTATORS simulated annotators answer without taking time."""
    clock = WallClock(origin)
    truth = np.arange(10 + settings.budget) % 10
    annotators = [Annotator(number, settings.annotators, truth, 10, 0) for number in range(ANNOTATORS)]
    asyncio.run(annotate_all(annotators, Desk(hub, clock), clock))


def answer_batches(hub: Any) -> None:
    """Draws and answers as many ids at a time as there are, until the run is over."""
    annotators, asked_at, labels = list(range(ANNOTATORS)), [0.0] * ANNOTATORS, [0] * ANNOTATORS
    with contextlib.suppress(Stopped):
        while True:
            ids = hub.draw(annotators, asked_at, 0)
            hub.answer(ids, annotators[: len(ids)], labels[: len(ids)])
            if not ids:
                time.sleep(0.001)


def draw_at_desk(hub: Any, origin: float, clients: int, seconds: float) -> list[float]:
    """Lets clients draw and answer through the desk of their process; returns the milliseconds of the draws."""
    times: list[float] = []

    async def client(desk: Desk, number: int, end: float) -> None:
        await asyncio.sleep(LABEL_S * number / clients)
        while time.monotonic() < end:
            asked_at = time.perf_counter()
            item = await desk.draw(number)
            times.append(1e3 * (time.perf_counter() - asked_at))
            await asyncio.sleep(LABEL_S)
            await desk.answer(item, number, item % 10)

    async def at_the_desk() -> None:
        desk, end = Desk(hub, WallClock(origin)), time.monotonic() + seconds
        with contextlib.suppress(Stopped):
            serving = asyncio.create_task(desk.run())
            await asyncio.gather(*(client(desk, number, end) for number in range(clients)))
            serving.cancel()

    asyncio.run(at_the_desk())
    return times


def draw_from_queue(queries: Any, answers: Any, clients: int, seconds: float) -> list[float]:
    """Lets clients, a thread each, take from one queue and put into another; returns the milliseconds of the gets."""
    times: list[float] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        time.sleep(LABEL_S * number / clients)
        while time.monotonic() < end:
            asked_at = time.perf_counter()
            item = queries.get()
            times.append(1e3 * (time.perf_counter() - asked_at))
            time.sleep(LABEL_S)
            answers.put((item, number))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return times


def produce(queries: Any) -> None:
    """Puts ids into a queue, one at a time, for ever."""
    for item in itertools.count():
        queries.put(item)


def consume(queries: Any, answers: Any) -> None:
    """Takes ids from a queue and puts labels into another, one at a time, for ever."""
    while True:
        answers.put((queries.get(), 0))


def keep_a_core_busy() -> None:
    """Computes the passes of a training with one thread, for ever."""
    import torch

    from bench.harness import network_of
    from bench.roofline import Roofline

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    torch.set_num_threads(1)
    Roofline(network_of("vgg16_bn", 0.25), 64, torch.device("cpu")).train_rate(seconds=float("inf"))
