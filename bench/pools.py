"""How fast ids go through the pools, how long a draw takes under load, and what a large pool costs."""

import contextlib
import functools
import multiprocessing
import pathlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from aal.coordination.hub import ANSWERED, DRAWN, OFFERED
from aal.coordination.parts import Parts
from aal.engines.local.engine import HubManager
from aal.storage.journal import SCHEMA, execute
from bench import sizes, soak
from bench.crowd import ask_desk, ask_queue, consume, keep_busy, label_batches, produce
from bench.images import Source
from bench.options import Options
from bench.table import Row, alternate

SHARD = 40_000  # ids of each of the 64 workers
LABELLERS = 4  # processes that draw and answer, when ids a second are counted
CLIENTS = (1, 8, 64)
WAITING = 10_000  # queries in S while draws are timed


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of the pools: ids a second, milliseconds of a draw, microseconds against the size of S."""
    seconds = 3.0 if options.quick else 10.0
    found = alternate(
        options.rounds,
        {"ours": lambda: ids_per_s(seconds), "instead": lambda: queue_ids_per_s(seconds), "limit": rows_per_s},
    )
    yield Row("pools/ids", "ids/s", **found)
    options.notes.append(
        f"pools/ids: two processes offer for {soak.WORKERS} workers, {soak.BATCH} ids at a time, {LABELLERS} draw and "
        "answer, up to 1,000 at a time; instead is Manager().Queue, an id a message and nothing on disk; the limit is "
        "the same rows written to SQLite alone"
    )
    yield from _draws(options, seconds)
    yield from sizes.rows(sizes.SIZES[:3] if options.quick else sizes.SIZES)
    options.notes.append(
        "pools/draw/of-N, pools/offer/of-N: S and L alone, a hundred in a call, N queries and N labels in them; "
        "the limit is the smallest pool"
    )


# ------------------------------------------------------------------ ids a second


@contextlib.contextmanager
def _served(shard: int, bound: int | None = None) -> Iterator[tuple[Any, Any, Any, float]]:
    """Gives settings, context, hub and origin of a hub in its own process, as the local engine has it."""
    settings = soak.settings_of(shard)
    if bound is not None:
        settings = settings.model_copy(update={"query_pool_size": bound})
    total = 10 + soak.WORKERS * shard
    first = np.arange(10)
    shards = list(np.arange(10, total).reshape(soak.WORKERS, shard))
    parts = Parts(10, np.arange(total) % 10, first[:4], first[4:6], first[6:], shards)
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory(prefix="bench-pools-") as folder, HubManager(ctx=context) as manager:
        origin = time.monotonic()
        hub = manager.hub(settings, parts, pathlib.Path(folder) / "run.db", origin, {}, None)  # type: ignore[attr-defined]
        yield settings, context, hub, origin
        hub.close("finished")


def ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get from a shard into L, on disk."""
    with _served(SHARD) as (settings, context, hub, origin):
        halves = range(0, soak.WORKERS, 2), range(1, soak.WORKERS, 2)
        machines = [context.Process(target=soak.machine, args=(settings, hub, origin, half)) for half in halves]
        with _running([*machines, *(context.Process(target=label_batches, args=(hub,)) for _ in range(LABELLERS))]):
            _until(lambda: hub.status().labels > 0)
            before, started_at = hub.status().labels, time.monotonic()
            _until(lambda: hub.status().labels == settings.budget, seconds)
            rate = (hub.status().labels - before) / (time.monotonic() - started_at)
            hub.stop()
    return rate


def queue_ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get through two plain queues of a Manager, a message each."""
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        queries, answers = manager.Queue(1000), manager.Queue(1000)
        ends = (produce, (queries,)), (consume, (queries, answers))
        with _running([context.Process(target=target, args=args) for target, args in ends]):
            answers.get()
            count, started_at = 0, time.monotonic()
            while time.monotonic() - started_at < seconds:
                answers.get()
                count += 1
            return count / (time.monotonic() - started_at)


def rows_per_s(ids: int = 50_000, commit: int = 1000) -> float:
    """Returns how many ids a second SQLite takes the rows of, in large commits."""
    with tempfile.TemporaryDirectory(prefix="bench-pools-") as folder:
        database = sqlite3.connect(pathlib.Path(folder) / "run.db")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(SCHEMA.read_text(encoding="utf-8"))
        started_at = time.monotonic()
        for start in range(0, ids, commit):
            items = range(start, start + commit)
            with database:
                execute(database, OFFERED, ((item, 0, "random", 0, 0, 0.0) for item in items))
                execute(database, DRAWN, ((0, 0.0, 0.0, item) for item in items))
                execute(database, ANSWERED, ((item, item, 0, 0, 0.0) for item in items))
        seconds = time.monotonic() - started_at
        database.close()
    return ids / seconds


# ------------------------------------------------------------------ the time of a draw


def _draws(options: Options, seconds: float) -> Iterator[Row]:
    """Times draws while two processes train: ours through the desk of all annotators, instead from a queue."""
    context = multiprocessing.get_context("forkserver")
    with _running([context.Process(target=keep_busy) for _ in range(options.cores)]):
        time.sleep(3)  # until they train
        for clients in CLIENTS:
            contenders = {
                "ours": functools.partial(_of_desk, clients, seconds),
                "instead": functools.partial(_of_queue, clients, seconds),
            }
            found = alternate(options.rounds, contenders)
            for name, share in (("median", 50), ("p99", 99)):
                values = {
                    key: [float(np.percentile(times, share)) for times in rounds] for key, rounds in found.items()
                }
                yield Row(f"pools/draw/{clients}-clients/{name}", "ms", **values)
    options.notes.append(
        f"pools/draw: {options.cores} processes train meanwhile; a client draws, takes 50 ms and answers"
    )


def _of_desk(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of draws from a hub whose S is never empty."""
    with _served(1000, bound=WAITING) as (settings, context, hub, origin):
        receiver, sender = context.Pipe(duplex=False)
        filler = context.Process(target=soak.machine, args=(settings, hub, origin))
        crowd = context.Process(target=ask_desk, args=(hub, origin, clients, seconds, sender))
        with _running([filler]):
            _until(lambda: hub.status().waiting >= WAITING - soak.BATCH)
            with _running([crowd]):
                times = _received(receiver, sender)
            hub.stop()
    return times


def _of_queue(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of gets from a queue that is never empty."""
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        queries, answers = manager.Queue(), manager.Queue()
        for item in range(int(clients * seconds / 0.05) + clients):
            queries.put(item)
        receiver, sender = context.Pipe(duplex=False)
        with _running([context.Process(target=ask_queue, args=(queries, answers, clients, seconds, sender))]):
            return _received(receiver, sender)


def _received(receiver: Any, sender: Any) -> list[float]:
    sender.close()  # so that a child that dies is noticed
    return receiver.recv()


@contextlib.contextmanager
def _running(processes: list[Any]) -> Iterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _until(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.05)
