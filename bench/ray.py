"""The engine ray: ids and draws through the hub's actor, against Ray's queue and the local engine; models, a run."""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from aal import __version__
from aal.coordination.partition import Partition
from aal.engines.base import Plan
from aal.storage.checksum import with_checksum
from bench import load_generator as load
from bench import ray_many
from bench.harness import Source
from bench.machines import Machines
from bench.pools import LABELLERS, SHARD, WAITING, hub_draws, ids_per_s
from bench.rows import Options, Row, alternate, rate_of, until
from bench.run_process import running
from bench.settings import WORDS, settings_of

CLIENTS = (8, 64)
POLLERS = 6
OBJECTS = 400 * 2**20  # bytes of the object store of each machine
MODEL, MACHINES, READERS = 60_000_000, 3, 10  # bytes of a model, machines that it goes to, workers that read it
MANY = ((64, 1000), (8, 100))  # workers and annotators of the run on many machines, and of a quick one
ROLES = 12  # processes of the start that is measured: a server, ten workers, annotators


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the rows of the engine ray; instead is Ray's own queue, by the message; the limit is the local engine."""
    try:
        import ray
    except ImportError:
        options.note("ray/missing")
        return
    seconds = 3.0 if options.quick else 10.0
    with local(ray):
        found = alternate(
            options.rounds,
            {
                "ours": partial(actor_ids_per_s, seconds),
                "instead": partial(queue_ids_per_s, seconds),
                "limit": partial(ids_per_s, seconds),
            },
        )
        yield Row("ray/ids", "ids/s", **found)
        calls = {"ours": partial(calls_per_s, seconds), "limit": partial(bare_calls_per_s, seconds)}
        yield Row("ray/calls", "calls/s", **alternate(options.rounds, calls))
        for clients in CLIENTS[:1] if options.quick else CLIENTS:
            times = alternate(
                options.rounds,
                {
                    "ours": partial(actor_draws, clients, seconds),
                    "instead": partial(queue_gets, clients, seconds),
                    "limit": partial(hub_draws, clients, seconds),
                },
            )
            for name, share in (("median", 50), ("p99", 99)):
                values = {key: [float(np.percentile(some, share)) for some in rounds] for key, rounds in times.items()}
                yield Row(f"ray/draw/{clients}-clients/{name}", "ms", **values)
    starts = alternate(options.rounds, {"ours": partial(start_s, "ray"), "limit": partial(start_s, "local")})
    yield Row("ray/start", "s", **starts)
    yield Row(f"ray/model/{READERS}-workers", "s", [model_s() for _ in range(options.rounds)])
    yield from ray_many.rows(*MANY[options.quick])
    options.note("ray", labellers=LABELLERS, pollers=POLLERS, readers=READERS, machines=MACHINES, mb=MODEL // 10**6)


@contextlib.contextmanager
def local(ray: Any) -> Iterator[None]:
    """Starts a Ray of its own on this machine, and ends it with the block."""
    ray.init("local", num_cpus=8, object_store_memory=OBJECTS, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


class Load:
    """An actor that puts load on a hub or on a queue.

    Args:
        host: the hub's actor; None for a queue.
        settings: of the run.
        hub_s: the run's time now.
    """

    def __init__(self, host: Any, settings: Any = None, hub_s: float = 0.0) -> None:
        from aal.engines.ray.hub_client import HubClient, HubTime

        parts: list[Any] = [HubClient(host, name, 0, 60.0, HubTime()) for name in ("server", "worker", "annotators")]
        nobody: Any = None
        self._hub = load.ServedHub(parts[0], parts[1], parts[2], nobody, settings, time.monotonic() - hub_s, 0)

    def on_hub(self, function: str, *args: Any) -> Any:
        """Calls a function of the load generator with the hub."""
        return getattr(load, function)(self._hub, *args)

    def on_queue(self, function: str, *args: Any) -> Any:
        """Calls a function of the load generator with queues."""
        return getattr(load, function)(*args)

    def poll(self, seconds: float) -> float:
        """Returns how many calls a second the hub takes of this process."""
        return rate_of(1, lambda: self._hub.annotators.draw([0], [0.0], 0), seconds)


@contextlib.contextmanager
def _served(shard: int, bound: int | None = None) -> Iterator[Any]:
    """Gives a function that starts an actor to put load on a hub, and the hub as the main process sees it."""
    import ray

    from aal.engines.ray.hub_client import RemoteHub
    from aal.engines.ray.hub_host import CALLS_AT_ONCE, HubHost

    settings = settings_of("hub", worker_query_num=shard // load.BATCH, query_pool_size=bound)
    ids, no_pixels = np.arange(10 + load.WORKERS * shard), np.ones(1, np.float32)
    shards = list(ids[10:].reshape(load.WORKERS, shard))
    partition = Partition(ids[:4], ids[4:6], ids[6:10], shards, mean=no_pixels, std=no_pixels)
    host = ray.remote(HubHost).options(num_cpus=0, max_concurrency=CALLS_AT_ONCE).remote()
    hub, actors = RemoteHub(host, 60.0, []), []

    def started() -> Any:
        actors.append(ray.remote(Load).options(num_cpus=0).remote(host, settings, hub_s))
        return actors[-1]

    with tempfile.TemporaryDirectory(prefix="bench-ray-") as folder:
        plan = Plan(settings, pathlib.Path(folder), partition, ids % 10, 10, (), {})
        hub_s = ray.get(host.open.remote(plan, pathlib.Path(folder), __version__))[0]
        for name in ("server", "worker", "annotators"):
            hub.asked(host.admit.remote(name, name, 0, []))
        try:
            yield started, hub, settings
        finally:
            hub.stop()
            hub.close("finished")
            for actor in [*actors, host]:
                ray.kill(actor)


def actor_ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get from a shard into L, on disk, through the hub's actor."""
    with _served(SHARD) as (started, hub, settings):
        for half in (range(0, load.WORKERS, 2), range(1, load.WORKERS, 2)):
            started().on_hub.remote("offer_and_train", half)
        for _ in range(LABELLERS):
            started().on_hub.remote("answer_batches")
        until(lambda: hub.status().labels > 0, 60.0)
        before, began = hub.status().labels, time.monotonic()
        until(lambda: hub.status().labels == settings.budget, seconds)
        return (hub.status().labels - before) / (time.monotonic() - began)


def queue_ids_per_s(seconds: float) -> float:
    """Returns how many ids a second get through two queues of Ray, a message each."""
    with _queues(1000) as (queries, answers, started):
        started().on_queue.remote("produce", queries)
        started().on_queue.remote("consume", queries, answers)
        answers.get()
        return rate_of(1, answers.get, seconds)


@contextlib.contextmanager
def _queues(size: int) -> Iterator[Any]:
    import ray
    from ray.util.queue import Queue

    queues, actors = [Queue(size, {"num_cpus": 0}) for _ in range(2)], []

    def started() -> Any:
        actors.append(ray.remote(Load).options(num_cpus=0).remote(None))
        return actors[-1]

    try:
        yield *queues, started
    finally:
        for actor in actors:
            ray.kill(actor)
        for queue in queues:
            queue.shutdown(force=True)


def calls_per_s(seconds: float) -> float:
    """Returns how many calls a second the hub's actor takes of several processes that do nothing else."""
    import ray

    with _served(1000) as (started, _, _settings):
        pollers = [started() for _ in range(POLLERS)]
        ray.get([one.poll.remote(0.1) for one in pollers])
        return float(sum(ray.get([one.poll.remote(seconds) for one in pollers])))


class Bare:
    """An actor that does nothing, and one that calls it."""

    def nothing(self) -> None:
        """Returns at once."""

    def call(self, other: Any, seconds: float) -> float:
        """Returns how many calls a second another one takes of this process."""
        import ray

        return rate_of(1, lambda: ray.get(other.nothing.remote()), seconds)


def bare_calls_per_s(seconds: float) -> float:
    """Returns how many calls a second an actor that does nothing takes of as many processes."""
    import ray

    actors = [ray.remote(Bare).options(num_cpus=0).remote() for _ in range(POLLERS + 1)]
    try:
        ray.get([one.call.remote(actors[0], 0.1) for one in actors[1:]])
        return float(sum(ray.get([one.call.remote(actors[0], seconds) for one in actors[1:]])))
    finally:
        for actor in actors:
            ray.kill(actor)


def actor_draws(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of draws through the hub's actor, whose S is never empty."""
    import ray

    with _served(1000, bound=WAITING) as (started, hub, _):
        started().on_hub.remote("offer_and_train")
        until(lambda: hub.status().waiting >= WAITING - load.BATCH, 60.0)
        times: list[float] = ray.get(started().on_hub.remote("draw_through_client", clients, seconds))
        return times


def queue_gets(clients: int, seconds: float) -> list[float]:
    """Returns the milliseconds of gets from a queue of Ray that is never empty."""
    import ray

    with _queues(0) as (queries, answers, started):
        number = int(clients * seconds / load.LABEL_S) + clients
        for start in range(0, number, 1000):
            queries.put_nowait_batch(list(range(start, min(number, start + 1000))))
        times: list[float] = ray.get(started().on_queue.remote("draw_from_queue", queries, answers, clients, seconds))
        return times


def start_s(engine: str) -> float:
    """Returns the seconds from the command to the moment at which a server and ten workers are there."""
    began = time.monotonic()
    with running([*WORDS["startup"], f"engine={engine}"]) as run:
        log = run.folder / "log.txt"

        def are_there() -> bool:
            run.check()
            return log.exists() and log.read_text(encoding="utf-8").count(" INFO computes on ") >= ROLES - 1

        until(are_there, 300.0)
        return time.monotonic() - began


class Reader:
    """An actor that stands for a worker that needs a model."""

    def __init__(self, run: pathlib.Path, files: Any) -> None:
        from aal.engines.ray.node_store import NodeStore
        from aal.engines.ray.store_folder import store_folder

        self._run, self._store = run, NodeStore(store_folder(), "be", files)

    def read(self, name: str, here: pathlib.Path) -> None:
        """Gets a model."""
        self._store.run_file(self._run / name, here)


def model_s() -> float:
    """Returns the seconds from a model's end on one machine until all workers on all machines have it."""
    import ray

    from aal.engines.ray.files_actor import started
    from aal.engines.ray.node_store import NodeStore

    with tempfile.TemporaryDirectory(prefix="bench-ray-") as name, contextlib.ExitStack() as ended:
        folder = pathlib.Path(name)
        (folder / "run" / "models").mkdir(parents=True)
        made = folder / "made.pt"
        made.write_bytes(with_checksum(os.urandom(MODEL) + b"\0\0"))
        machines = Machines(folder, {f"machine-{number}": 4 for number in range(MACHINES)}, OBJECTS)
        ended.callback(machines.close)
        ray.init(machines.address, log_to_driver=False)
        ended.callback(ray.shutdown)
        files = started({"num_cpus": 0}, folder / "run", [])
        readers = [
            ray.remote(Reader).options(num_cpus=1, scheduling_strategy="SPREAD").remote(folder / "run", files)
            for _ in range(READERS)
        ]
        places = [folder / f"worker-{number}.pt" for number in range(READERS)]
        for round_ in range(2):  # the first starts the processes
            began, model = time.monotonic(), f"models/{round_}.pt"
            NodeStore(folder / "sender", "be", files).send(made, model, "server-0-0")
            ray.get([one.read.remote(model, place) for one, place in zip(readers, places, strict=True)])
        return time.monotonic() - began
