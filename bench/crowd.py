"""The processes that the bench of the pools starts: clients that draw and answer, and others that keep cores busy."""

import asyncio
import contextlib
import signal
import threading
import time
from typing import Any

from aal.annotators.simulated import Desk
from aal.config.errors import Stopped
from aal.coordination.clock import WallClock

LABEL_S = 0.05  # what a client takes for a label
AT_ONCE = 1000  # annotators behind one client of a hub


def ask_desk(hub: Any, origin: float, clients: int, seconds: float, sender: Any) -> None:
    """Lets clients draw and answer through the desk of their process; sends the milliseconds of the draws."""
    sender.send(asyncio.run(_at_the_desk(hub, WallClock(origin), clients, seconds)))


async def _at_the_desk(hub: Any, clock: WallClock, clients: int, seconds: float) -> list[float]:
    desk = Desk(hub, clock)
    times: list[float] = []
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        await asyncio.sleep(LABEL_S * number / clients)
        while time.monotonic() < end:
            asked_at = time.perf_counter()
            item = await desk.draw(number)
            times.append(1e3 * (time.perf_counter() - asked_at))
            await asyncio.sleep(LABEL_S)
            await desk.answer(item, number, item % 10)

    with contextlib.suppress(Stopped):
        running = asyncio.create_task(desk.run())
        await asyncio.gather(*(client(number) for number in range(clients)))
        running.cancel()
    return times


def label_batches(hub: Any) -> None:
    """Draws and answers as many ids at a time as there are, until the run is over."""
    annotators, asked_at, labels = list(range(AT_ONCE)), [0.0] * AT_ONCE, [0] * AT_ONCE
    with contextlib.suppress(Stopped):
        while True:
            items = hub.draw(annotators, asked_at, 0)
            hub.answer(items, annotators[: len(items)], labels[: len(items)])
            if not items:
                time.sleep(0.001)


def ask_queue(queries: Any, answers: Any, clients: int, seconds: float, sender: Any) -> None:
    """Lets clients, a thread each, take from one queue and put into another; sends the milliseconds of the gets."""
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

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.send(times)


def produce(queries: Any) -> None:
    """Puts ids into a queue, one at a time, for ever."""
    item = 0
    while True:
        queries.put(item)
        item += 1


def consume(queries: Any, answers: Any) -> None:
    """Takes ids from a queue and puts labels into another, one at a time, for ever."""
    while True:
        answers.put((queries.get(), 0))


def keep_busy() -> None:
    """Trains a small network with one thread, for ever."""
    import numpy as np
    import torch

    from aal.app.models import build_model
    from aal.app.server_train import fit
    from aal.config.loading import resolve
    from aal.training.images import ImageBank
    from aal.training.trainer import TrainingTask

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    torch.set_num_threads(1)
    training = resolve({"data_type": "cifar-10"}, "bench").training.model_copy(update={"epochs": 1_000_000})
    images = np.random.default_rng(0).integers(0, 256, (640, 32, 32, 3), np.uint8)
    model = build_model("vgg16_bn", classes=10, channels=3, image_size=32, width=0.25, seed=0)
    ids, normalisation = np.arange(640), {"mean": [0.5] * 3, "std": [0.25] * 3}
    fit(model, TrainingTask(ImageBank(images, torch.device("cpu")), ids, ids % 10, training, normalisation, seed=0))
