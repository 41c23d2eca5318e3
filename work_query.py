"""A worker: with the newest models, choose the ids of its shard whose labels are worth most; again and again."""

import asyncio
import logging
import pathlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aal.config.errors import Stopped
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.clock import Clock, Work
from aal.coordination.hub import Hub
from aal.coordination.messages import QueryBatch, SelectionGrant
from aal.strategies.assignment import assign
from aal.strategies.pool import CandidatePool, Labelled
from aal.strategies.strategy import Strategy, build_strategy, select_checked
from aal.training.cost import selection_cost
from aal.training.devices import resolve_device, use_threads
from aal.training.images import ImageBank, shared_bank
from aal.training.inference import ModelScorer

log = logging.getLogger("aal")


@dataclass
class Worker:
    """What a worker needs to select.

    Attributes:
        index: its number.
        run: the run's folder, which model paths are relative to.
        strategy: name of how it selects.
        bank: the images of the whole set, on the device to score on.
        seed: of the run.
        options: of the strategy.
        networks: of the run; those of a user's own may be imported for a model file that names them.
    """

    index: int
    run: pathlib.Path
    strategy: str
    bank: ImageBank
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._strategy: Strategy = build_strategy(self.strategy, self.options)

    def cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is."""
        return selection_cost(self.index, grant, self.strategy, len(remaining))

    def select(self, grant: SelectionGrant, remaining: np.ndarray, labelled: Labelled) -> np.ndarray:
        """Chooses the best `grant.count` of the remaining ids (paper, equation 2: S_j = strategy_j(g*, D_j)).

        Args:
            grant: the models to choose with, the size and number of the batch.
            remaining: (n,) ids of the shard that were not offered yet.
            labelled: returns the ids and labels of L; called only when the strategy asks for them.

        Returns:
            (at most count,) ids.

        Raises:
            UserError: a model file is damaged, or the strategy returns what is no selection.
        """
        seed = derive(self.seed, "worker", self.index, grant.batch)
        models = [
            ModelScorer(self.run / model.path, self.bank, slot, self.networks)
            for slot, model in enumerate(grant.models)
        ]
        keep_embeddings = getattr(self._strategy, "uses_embeddings", True)
        pool = CandidatePool(remaining, models, labelled, keep_embeddings=keep_embeddings, seed=seed)
        rng = np.random.RandomState(seed)  # whose stream NumPy promises for good
        return remaining[select_checked(self._strategy, self.strategy, pool, grant.count, rng)]


@dataclass(frozen=True)
class CostedWorker:
    """A worker under `compute: none`: its selections take their time on the virtual clock and are random.

    Attributes:
        index: its number.
        strategy: name of how it would select.
        seed: of the run.
    """

    index: int
    strategy: str
    seed: int

    def cost(self, turn: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection would be."""
        return selection_cost(self.index, turn, self.strategy, len(remaining))

    def select(self, turn: SelectionGrant, remaining: np.ndarray, labelled: Labelled) -> np.ndarray:
        """Chooses `turn.count` of the remaining ids, all alike."""
        chance = np.random.default_rng(derive(self.seed, "worker", self.index, turn.batch))
        return remaining[np.sort(chance.choice(len(remaining), min(turn.count, len(remaining)), replace=False))]


async def work(worker: Worker | CostedWorker, hub: Hub, clock: Clock) -> None:
    """A worker's life: wait for its turn, choose, offer; until its batches or its shard are used up."""
    remaining = hub.remaining(worker.index)

    def labelled() -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and labels of L at this moment."""
        return hub.labels(0, sys.maxsize)

    try:
        while True:
            turn = await clock.until(hub.turn, worker.index)
            started_at = clock.now()
            chosen = await clock.spend(worker.cost(turn, remaining), worker.select, turn, remaining, labelled)
            offer = QueryBatch(
                worker.index, turn.batch, chosen.tolist(), worker.strategy, turn.models[0].version, started_at
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
        options = settings.query_strategy_options
        team.append(Worker(number, run, strategies[number], bank, settings.seed, options, tuple(settings.models)))
    await asyncio.gather(*(work(worker, hub, clock) for worker in team))


async def start_costed(index: int, run: pathlib.Path, settings: Settings, hub: Hub, clock: Clock, workers: int) -> None:
    """Lets worker `index` of `workers` of a run without computing work."""
    await work(CostedWorker(index, assign(settings, workers)[index], settings.seed), hub, clock)
