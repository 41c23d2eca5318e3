"""A hub, 64 workers' worth of offers and 1,000 annotators as fast as they can: does anything grow or slow down?

Example:
  python -m bench.soak --minutes 10
"""

import argparse
import asyncio
import json
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil

from aal.annotators.simulated import Annotator, Desk, annotate_all
from aal.config.errors import Stopped
from aal.config.loading import resolve
from aal.config.settings import Settings
from aal.coordination.clock import WallClock
from aal.coordination.messages import QueryBatch, TrainedModel
from aal.coordination.parts import Parts
from aal.engines.local.engine import HubManager

WORKERS, BATCH, ANNOTATORS = 64, 100, 1000
SHARD = 150_000  # items of a worker: more than can be labelled meanwhile


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when memory or open files grew, or the rate fell."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: 10)")
    parser.add_argument("--shard", type=int, default=SHARD, help="items of each worker")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        samples = soak(pathlib.Path(folder), 60 * arguments.minutes, arguments.shard)
    return tell(samples, arguments.json)


def settings_of(shard: int) -> Settings:
    """A run of trivial trainings whose budget is the whole pool."""
    tree = {
        **{"data_type": "digits", "models": "cnn", "max_staleness": None, "worker_num": WORKERS},
        **{"query_batch": BATCH, "worker_query_num": shard // BATCH, "server_train_threshold": WORKERS * BATCH},
        "annotators": {"number": ANNOTATORS, "seconds_per_label": 0.0, "relative_std": 0.0},
    }
    return resolve(tree, "soak")


def soak(folder: pathlib.Path, seconds: float, shard: int) -> list[dict[str, Any]]:
    """Runs for so long and looks at every process every ten seconds."""
    settings, total = settings_of(shard), 10 + WORKERS * shard
    first = np.arange(10)
    shards = list(np.arange(10, total).reshape(WORKERS, shard))
    parts = Parts(10, np.arange(total) % 10, first[:4], first[4:6], first[6:], shards)
    context = multiprocessing.get_context("forkserver")
    origin = time.monotonic()
    with HubManager(ctx=context) as manager:
        hub = manager.hub(settings, parts, folder / "run.db", origin, {}, None)  # type: ignore[attr-defined]
        origin = time.monotonic()
        roles = {"server and workers": machine, "annotators": people}
        processes = {name: context.Process(target=role, args=(settings, hub, origin)) for name, role in roles.items()}
        for process in processes.values():
            process.start()
        watched = {name: psutil.Process(process.pid) for name, process in processes.items()}
        watched["hub"] = psutil.Process(manager._process.pid)  # type: ignore[attr-defined]
        samples = []
        while time.monotonic() - origin < seconds:
            time.sleep(min(10.0, seconds / 6))
            samples.append(sample(watched, hub.status().labels, time.monotonic() - origin))
            print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
        hub.stop()
        for process in processes.values():
            process.join(30)
        hub.close("finished")
    return samples


def sample(watched: dict[str, psutil.Process], labels: int, seconds: float) -> dict[str, Any]:
    """What the processes hold now."""
    return {
        "seconds": round(seconds, 1),
        "labels": labels,
        "private_mib": {name: round(process.memory_full_info().uss / 2**20, 1) for name, process in watched.items()},
        "files": {name: process.num_fds() for name, process in watched.items()},
    }


def machine(settings: Settings, hub: Any, origin: float, workers: Sequence[int] = range(WORKERS)) -> None:
    """The offers of some workers and, with the first of them, one server whose trainings take no time."""
    clock = WallClock(origin)
    chance = np.random.RandomState(0)
    left = {worker: hub.remaining(worker) for worker in workers}
    start = dict.fromkeys(workers, 0)

    def train() -> bool:
        ticket = hub.ticket(0) if 0 in left else None
        if ticket is not None:
            hub.publish(TrainedModel(ticket.number, 0, "none", "none", 1, clock.now(), None, chance.rand()))
        return ticket is not None

    def offer(worker: int) -> bool:
        if start[worker] == len(left[worker]):
            return False
        turn = hub.turn(worker)
        if turn is None:
            return False
        items = left[worker][start[worker] : start[worker] + turn.count].tolist()
        start[worker] += len(items)
        hub.offer(QueryBatch(worker, turn.batch, items, "random", turn.models[0].version, clock.now()))
        return True

    try:
        while True:
            if not train() + sum(offer(worker) for worker in chance.permutation(workers).tolist()):
                time.sleep(0.002)
    except Stopped:
        return


def people(settings: Settings, hub: Any, origin: float) -> None:
    """The annotators, who answer at once."""
    clock = WallClock(origin)
    truth = np.arange(10 + WORKERS * settings.worker_query_num * settings.query_batch) % 10
    crowd = [Annotator(number, settings.annotators, truth, 10, 0) for number in range(ANNOTATORS)]
    asyncio.run(annotate_all(crowd, Desk(hub, clock), clock))


def tell(samples: list[dict[str, Any]], as_json: bool) -> int:
    """Compares the time after the first minute (or tenth) with the end; returns the exit code."""
    after = [one for one in samples if one["seconds"] >= samples[-1]["seconds"] / 10]
    begin, end = after[0], after[-1]
    middle = after[len(after) // 2]
    rates = [
        (late["labels"] - early["labels"]) / (late["seconds"] - early["seconds"])
        for early, late in ((begin, middle), (middle, end))
    ]
    grown = {name: round(end["private_mib"][name] - begin["private_mib"][name], 1) for name in end["private_mib"]}
    labels = end["labels"] - begin["labels"]
    found = {
        "seconds": end["seconds"],
        "labels": end["labels"],
        "labels_per_s": {"first half": round(rates[0]), "second half": round(rates[1])},
        "private_mib": {"after a tenth": begin["private_mib"], "at the end": end["private_mib"]},
        "grown_bytes_per_label": {name: round(mib * 2**20 / max(labels, 1), 1) for name, mib in grown.items()},
        "files": {"after a tenth": begin["files"], "at the end": end["files"]},
    }
    print(json.dumps(found, indent=None if as_json else 2))
    # The hub keeps the place in S or L of every id: some bytes a label are its work, not a leak.
    flat = all(mib * 2**20 <= 64 * labels + 2**24 for mib in grown.values())
    steady = rates[1] >= 0.8 * rates[0] and begin["files"] == end["files"]
    return 0 if flat and steady else 1


if __name__ == "__main__":
    sys.exit(main())
