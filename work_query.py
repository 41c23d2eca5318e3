"""A worker: with the newest model, choose the ids of its shard whose labels are worth most; again and again."""

import asyncio
import functools
import logging
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from aal.app.models import rebuild
from aal.config.errors import Stopped
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.clock import Clock, Work
from aal.coordination.hub import Hub
from aal.coordination.messages import QueryBatch, SelectionGrant
from aal.storage.model_files import load_model
from aal.strategies import Strategy, assign, choose, near_the_cut
from aal.training.acceleration import folded
from aal.training.devices import computes_in_bf16, resolve_device, use_threads
from aal.training.fitting import predict
from aal.training.images import ImageBank, shared_bank

log = logging.getLogger("aal")


@functools.lru_cache(maxsize=1)  # the workers of a process mostly choose with the same model, the newest
def _scorer(path: pathlib.Path, written_at: int, device: torch.device) -> tuple[nn.Module, dict[str, list[float]]]:
    """Returns the model of a file, ready to score, and its normalisation; a file that was replaced is read anew."""
    payload = load_model(path)
    return folded(rebuild(payload, path).to(device)), payload["normalisation"]


@dataclass
class Worker:
    """What a worker needs to choose.

    Attributes:
        index: its number.
        run: the run's folder, which model paths are relative to.
        strategy: how it ranks.
        bank: the images of the whole set, on the device to score on.
        seed: of the run.
    """

    index: int
    run: pathlib.Path
    strategy: Strategy
    bank: ImageBank
    seed: int

    def work(self, turn: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is."""
        return selection_work(self.index, turn, self.strategy, len(remaining))

    def select(self, turn: SelectionGrant, remaining: np.ndarray) -> np.ndarray:
        """Chooses the best `turn.count` of the remaining ids (paper, equation 2: S_j = strategy_j(g*, D_j)).

        Args:
            turn: the model to choose with, the size and number of the batch.
            remaining: (n,) ids of the shard that were not offered yet.

        Returns:
            (min(count, n),) ids.
        """
        scores = self._scores(turn, remaining, "auto")
        if self.strategy.needs and computes_in_bf16(self.bank.device) and turn.count < len(remaining):
            close = near_the_cut(scores, turn.count)
            scores[close] = self._scores(turn, remaining[close], "float32")
        return remaining[choose(scores, turn.count, derive(self.seed, "worker", self.index, turn.batch))]

    def _scores(self, turn: SelectionGrant, ids: np.ndarray, precision: str) -> np.ndarray:
        needed = {}
        if "probabilities" in self.strategy.needs:
            needed["probabilities"] = self.probabilities(turn, ids, precision)
        return self.strategy.score(len(ids), **needed)

    def probabilities(self, turn: SelectionGrant, ids: np.ndarray, precision: str = "auto") -> np.ndarray:
        """Returns the full class probabilities of the turn's model, float32 (n, classes)."""
        path = self.run / turn.model.path
        model, normalisation = _scorer(path, path.stat().st_mtime_ns, self.bank.device)
        logits = predict(model, self.bank, ids, normalisation=normalisation, precision=precision)
        return torch.softmax(logits, dim=1).numpy()


@dataclass(frozen=True)
class CostedWorker:
    """A worker under `compute: none`: its selections take their time on the virtual clock and are random.

    Attributes:
        index: its number.
        strategy: how it would rank.
        seed: of the run.
    """

    index: int
    strategy: Strategy
    seed: int

    def work(self, turn: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection would be."""
        return selection_work(self.index, turn, self.strategy, len(remaining))

    def select(self, turn: SelectionGrant, remaining: np.ndarray) -> np.ndarray:
        """Chooses `turn.count` of the remaining ids, all alike."""
        chance = np.random.default_rng(derive(self.seed, "worker", self.index, turn.batch))
        return remaining[np.sort(chance.choice(len(remaining), min(turn.count, len(remaining)), replace=False))]


def selection_work(index: int, turn: SelectionGrant, strategy: Strategy, remaining: int) -> Work:
    """Returns how much a selection is: a strategy that needs nothing of the model scores nothing."""
    return Work("selection", index, turn.batch, trained=0, scored=remaining if strategy.needs else 0)


async def work(worker: Worker | CostedWorker, hub: Hub, clock: Clock) -> None:
    """A worker's life: wait for its turn, choose, offer; until its batches or its shard are used up."""
    remaining = hub.remaining(worker.index)
    try:
        while True:
            turn = await clock.until(hub.turn, worker.index)
            started_at = clock.now()
            chosen = await clock.spend(worker.work(turn, remaining), worker.select, turn, remaining)
            offer = QueryBatch(
                worker.index, turn.batch, chosen.tolist(), worker.strategy.name, turn.model.version, started_at
            )
            hub.offer(offer)
            about = (worker.index, len(chosen), offer.version, offer.batch)
            log.info("worker %d offered %d images chosen with v%d (batch %d)", *about)
            remaining = np.setdiff1d(remaining, chosen, assume_unique=True)
    except Stopped:
        return


async def start(
    index: int, run: pathlib.Path, settings: Settings, hub: Hub, clock: Clock, images: pathlib.Path, workers: int
) -> None:
    """Builds the workers of process `index`, one unless processes are shared, and lets them work."""
    use_threads("worker", settings)
    devices, strategies = settings.devices.workers, assign(settings, workers)
    team = []
    for number in range(index, workers, settings.devices.processes_for(workers)):
        hub.release("worker", number)  # what one before it may have held
        bank = shared_bank(images / "images.npy", resolve_device(devices[number % len(devices)], number))
        team.append(Worker(number, run, strategies[number], bank, settings.seed))
    await asyncio.gather(*(work(worker, hub, clock) for worker in team))


async def start_costed(index: int, run: pathlib.Path, settings: Settings, hub: Hub, clock: Clock, workers: int) -> None:
    """Lets worker `index` of `workers` of a run without computing work."""
    await work(CostedWorker(index, assign(settings, workers)[index], settings.seed), hub, clock)
