"""How fast ids go through the pools, how long a draw takes under load, and what a large pool costs."""

import contextlib
import pathlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from aal.config.cores import core_count
from aal.coordination.pools import LabelledPool
from aal.coordination.query_pool import QueryPool
from aal.storage.run_recorder import ANSWERED, DRAWN, LABELLED, OFFERED
from aal.storage.schema import SCHEMA
from aal.storage.statements import execute
from bench import load_generator as load
from bench.harness import Source
from bench.rows import Options, Row, alternate, rate_of, until

SHARD = 40_000  # ids of each worker
LABELLERS = 4  # processes that draw and answer, when ids a second are counted
CLIENTS = (1, 8, 64)
WAITING = 10_000  # queries in S while draws are timed
SIZES = (1000, 10_000, 100_000, 1_000_000, 10_000_000)  # of S and of L
MOVES, REPEATS = 1000, 9  # offers or draws that are timed together, and how often
CALL = 100  # draws in a call


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of the pools: ids a second, milliseconds of a draw, microseconds against the size of S."""
    seconds = 3.0 if options.quick else 10.0
    ours, instead = partial(ids_per_s, seconds), partial(queue_ids_per_s, seconds)
    found = alternate(options.rounds, {"ours": ours, "instead": instead, "limit": partial(rows_per_s)})
    yield Row("pools/ids", "ids/s", **found)
    options.note("pools/ids", workers=load.WORKERS, batch=load.BATCH, labellers=LABELLERS)
    yield from _draws(options, seconds)
    yield from sizes(SIZES[:3] if options.quick else SIZES)
    options.note("pools/sizes")


def ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get from a shard into L, on disk."""
    with load.served_hub(SHARD) as hub:
        halves = range(0, load.WORKERS, 2), range(1, load.WORKERS, 2)
        machines = [(load.offer_and_train, hub, half) for half in halves]
        with load.running(*machines, *[(load.answer_batches, hub)] * LABELLERS):
            until(lambda: hub.monitor.status().labels > 0, 60.0)
            before, started_at = hub.monitor.status().labels, time.monotonic()
            until(lambda: hub.monitor.status().labels == hub.settings.budget, seconds)
            rate = (hub.monitor.status().labels - before) / (time.monotonic() - started_at)
            hub.monitor.stop()
    return rate


def queue_ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get through two plain queues of a Manager, a message each."""
    with load.CONTEXT.Manager() as manager:
        queries, answers = manager.Queue(1000), manager.Queue(1000)
        with load.running((load.produce, queries), (load.consume, queries, answers)):
            answers.get()
            return rate_of(1, answers.get, seconds)


def rows_per_s(ids: int = 50_000, commit: int = 1000) -> float:
    """Returns how many ids a second SQLite takes the rows of, in large commits."""
    with tempfile.TemporaryDirectory(prefix="bench-pools-") as folder:
        database = sqlite3.connect(pathlib.Path(folder) / "run.db")
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA.read_text(encoding="utf-8"))

        def write() -> None:
            for start in range(0, ids, commit):
                items = range(start, start + commit)
                with database:
                    execute(database, OFFERED, ((item, 0, "random", 0, 0, 0.0) for item in items))
                    execute(database, DRAWN, ((0, 0.0, 0.0, item) for item in items))
                    execute(database, ANSWERED, ((item, item, 0, 0, 0.0, "label") for item in items))
                    execute(database, LABELLED, ((item, item, 0, 1.0, 0, 0.0, None) for item in items))

        with contextlib.closing(database):
            return rate_of(ids, write)


def _draws(options: Options, seconds: float) -> Iterator[Row]:
    """Times draws while every core is busy: ours through the client of all annotators, instead from a queue."""
    with load.running(*[(load.keep_a_core_busy,)] * core_count()):
        time.sleep(3)  # until they compute
        for clients in CLIENTS:
            ours, instead = partial(hub_draws, clients, seconds), partial(queue_gets, clients, seconds)
            found = alternate(options.rounds, {"ours": ours, "instead": instead})
            for name, share in (("median", 50), ("p99", 99)):
                values = {key: [float(np.percentile(some, share)) for some in rounds] for key, rounds in found.items()}
                yield Row(f"pools/draw/{clients}-clients/{name}", "ms", **values)
    options.note("pools/draw", cores=core_count())


def hub_draws(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of draws from a hub whose S is never empty."""
    with load.served_hub(1000, bound=WAITING) as hub, load.running((load.offer_and_train, hub)):
        until(lambda: hub.monitor.status().waiting >= WAITING - load.BATCH, 60.0)
        with ProcessPoolExecutor(1, load.CONTEXT) as pool:
            times = pool.submit(load.draw_through_client, hub, clients, seconds).result()
        hub.monitor.stop()
    return times


def queue_gets(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of gets from a queue that is never empty."""
    with load.CONTEXT.Manager() as manager, ProcessPoolExecutor(1, load.CONTEXT) as pool:
        queries, answers = manager.Queue(), manager.Queue()
        for item in range(int(clients * seconds / load.LABEL_S) + clients):
            queries.put(item)
        return pool.submit(load.draw_from_queue, queries, answers, clients, seconds).result()


def sizes(numbers: tuple[int, ...]) -> Iterator[Row]:
    """Gives the microseconds of a draw with its answer, and of an offer; the limit is that of the smallest pool."""
    found = {number: _moves(number) for number in numbers}
    for move in ("draw", "offer"):
        for number in numbers:
            yield Row(f"pools/{move}/of-{number}", "us", found[number][move], limit=found[numbers[0]][move])


def _moves(size: int) -> dict[str, list[float]]:
    """Times moves in pools with `size` queries waiting and as many labels."""
    queries = QueryPool(2 * size, seed=0)
    labelled = LabelledPool(3 * size + REPEATS * MOVES)
    labelled.add(np.arange(size), np.zeros(size, np.int64))
    queries.offer(range(size, 2 * size))
    times: dict[str, list[float]] = {"draw": [], "offer": []}
    for start in range(2 * size, 2 * size + REPEATS * MOVES, MOVES):
        began_at = time.perf_counter()
        queries.offer(range(start, start + MOVES))
        offered_at = time.perf_counter()
        for _ in range(MOVES // CALL):
            items = queries.draw(range(CALL), 1e9)
            for number, item in enumerate(items):
                queries.settle(item, number)
                queries.finish(item)
            labelled.add(items, [0] * CALL)
        times["offer"].append(1e6 * (offered_at - began_at) / MOVES)
        times["draw"].append(1e6 * (time.perf_counter() - offered_at) / MOVES)
    return times
