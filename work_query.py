"""A worker: with the newest model, choose the ids of its shard whose labels are worth most; again and again."""

import functools
import logging
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from aal.app.models import rebuild
from aal.config.errors import Stopped
from aal.config.seeding import derive
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.interfaces import WorkerHub
from aal.coordination.messages import QueryBatch, SelectionGrant
from aal.storage.model_files import load_model
from aal.strategies import Strategy, choose, near_the_cut
from aal.training.acceleration import folded
from aal.training.devices import computes_in_bf16
from aal.training.fitting import predict
from aal.training.images import ImageBank

ALL = 2**62  # labels

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
        path = self.run / turn.models[0].path
        model, normalisation = _scorer(path, path.stat().st_mtime_ns, self.bank.device)
        logits = predict(model, self.bank, ids, normalisation=normalisation, precision=precision)
        return torch.softmax(logits, dim=1).numpy()


def selection_work(index: int, turn: SelectionGrant, strategy: Strategy, remaining: int) -> Work:
    """Returns how much a selection is: a strategy that needs nothing of the model scores nothing."""
    return Work("selection", index, turn.batch, trained=0, scored=remaining if strategy.needs else 0)


class Selects(Protocol):
    """What the role of a worker computes with: a `Worker`, or its stand-in in a simulation."""

    strategy: str

    def cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is."""
        ...

    def select(
        self,
        grant: SelectionGrant,
        remaining: np.ndarray,
        labelled: Callable[[], tuple[np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """Returns at most `grant.count` of the remaining ids."""
        ...


async def work(worker: Selects, context: Context[WorkerHub]) -> None:
    """The role of a worker: wait for a grant, select, offer; until its batches or its shard are used up."""
    hub, clock, index = context.hub, context.clock, context.index
    remaining = hub.remaining(index)

    def labelled() -> tuple[np.ndarray, np.ndarray]:
        return hub.labels(0, ALL)

    try:
        while True:
            grant = await clock.until(hub.grant, index)
            started_at = clock.now()
            chosen = await clock.spend(worker.cost(grant, remaining), worker.select, grant, remaining, labelled)
            versions = tuple(model.version for model in grant.models)
            hub.offer(QueryBatch(index, grant.batch, chosen.tolist(), worker.strategy, versions, started_at))
            about = (index, len(chosen), grant.version, grant.batch)
            log.info("worker %d offered %d ids selected with v%d (batch %d)", *about)
            remaining = np.setdiff1d(remaining, chosen, assume_unique=True)
    except Stopped:
        return
