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

from aal.annotators.client import AnnotatorClient
from aal.annotators.label_source import annotate, build
from aal.config.errors import Stopped
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import WallClock
from aal.coordination.interfaces import AnnotatorHub, Monitor, ServerHub, WorkerHub
from aal.coordination.messages import QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.partition import Partition
from aal.engines.base import Plan
from aal.engines.local.hub_process import HubManager
from bench.settings import settings_of

WORKERS, BATCH, ANNOTATORS = 64, 100, 1000  # as in settings.yaml
CONTEXT = multiprocessing.get_context("forkserver")
LABEL_S = 0.05  # what a client takes for a label


class ServedHub(NamedTuple):
    """The parts of a hub in its own process `pid`, the settings of its run and the moment at which its clock began."""

    server: ServerHub
    worker: WorkerHub
    annotators: AnnotatorHub
    monitor: Monitor
    settings: Settings
    origin: float
    pid: int


@contextlib.contextmanager
def served_hub(shard: int, bound: int | None = None) -> Iterator[ServedHub]:
    """Gives a hub with so many ids for each worker, and so much room in S, that records to a temporary folder."""
    settings = settings_of("hub", worker_query_num=shard // BATCH, query_pool_size=bound)
    ids, no_pixels = np.arange(10 + WORKERS * shard), np.ones(1, np.float32)
    shards = list(ids[10:].reshape(WORKERS, shard))
    partition = Partition(ids[:4], ids[4:6], ids[6:10], shards, mean=no_pixels, std=no_pixels)
    manager: Any = HubManager(ctx=CONTEXT)
    with tempfile.TemporaryDirectory(prefix="bench-hub-") as folder, manager:
        origin, plan = time.monotonic(), Plan(settings, pathlib.Path(folder), partition, ids % 10, 10, (), {})
        monitor = manager.open(plan, origin)
        parts = manager.server("server", 0), manager.worker("worker", 0), manager.annotators("annotators", 0)
        yield ServedHub(*parts, monitor, settings, origin, manager.process.pid)
        monitor.close("finished")


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


def offer_and_train(hub: ServedHub, workers: Sequence[int] = range(WORKERS)) -> None:
    """Makes the offers of some workers and, with the first of them, the trainings of a server, which take no time."""
    clock, chance = WallClock(hub.origin), np.random.RandomState(0)
    left = {worker: hub.worker.remaining(worker) for worker in workers}

    def train() -> bool:
        job = hub.server.job(0) if 0 in left else None
        if isinstance(job, TrainingJob):
            hub.server.publish(TrainedModel(job.number, 0, "none", "none", 1, clock.now(), None, chance.rand()))
        return isinstance(job, TrainingJob)

    def offer(worker: int) -> bool:
        grant = hub.worker.grant(worker) if len(left[worker]) else None
        if not isinstance(grant, SelectionGrant):
            return False
        ids, left[worker] = left[worker][: grant.count].tolist(), left[worker][grant.count :]
        hub.worker.offer(QueryBatch(worker, grant.batch, ids, "random", (grant.version,), clock.now()))
        return True

    with contextlib.suppress(Stopped):
        while True:
            if not train() + sum(map(offer, chance.permutation(workers).tolist())):
                time.sleep(0.002)


def annotate_at_once(hub: ServedHub) -> None:
    """Lets ANNOTATORS simulated annotators answer without taking time."""
    clock, truth = WallClock(hub.origin), np.arange(10 + hub.settings.budget) % 10
    context = Context("annotators", 0, pathlib.Path(), hub.settings, hub.annotators, clock, lambda: None)
    asyncio.run(annotate(build(context, truth, "0123456789", None, None), context))


def answer_batches(hub: ServedHub) -> None:
    """Draws and answers as many ids at a time as there are, until the run is over."""
    annotators, asked_at, labels = list(range(ANNOTATORS)), [0.0] * ANNOTATORS, [0] * ANNOTATORS
    with contextlib.suppress(Stopped):
        while True:
            ids = hub.annotators.draw(annotators, asked_at, 0)
            hub.annotators.answer(ids, annotators[: len(ids)], labels[: len(ids)])
            if not ids:
                time.sleep(0.001)


def draw_through_client(hub: ServedHub, clients: int, seconds: float) -> list[float]:
    """Lets annotators draw and answer through the one client of their process; returns the milliseconds of draws."""
    times: list[float] = []

    async def label(client: AnnotatorClient, number: int, end: float) -> None:
        await asyncio.sleep(LABEL_S * number / clients)
        while time.monotonic() < end:
            asked_at = time.perf_counter()
            item = await client.draw(number)
            times.append(1e3 * (time.perf_counter() - asked_at))
            await asyncio.sleep(LABEL_S)
            await client.answer(item, number, item % 10)

    async def label_all() -> None:
        client, end = AnnotatorClient(hub.annotators, WallClock(hub.origin)), time.monotonic() + seconds
        with contextlib.suppress(Stopped):
            serving = asyncio.create_task(client.run())
            await asyncio.gather(*(label(client, number, end) for number in range(clients)))
            serving.cancel()

    asyncio.run(label_all())
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

    from bench.contenders import Roofline
    from bench.harness import network_of

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    torch.set_num_threads(1)
    Roofline(network_of("vgg16_bn", 0.25), torch.device("cpu"), number=64).train_rate(seconds=float("inf"))
