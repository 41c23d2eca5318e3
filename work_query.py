"""A worker: with the newest models, choose the ids of its shard whose labels are worth most; again and again."""

import logging
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aal.config.contradictions import learns_on_features
from aal.config.errors import Stopped, UserError
from aal.config.seeding import derive
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.interfaces import Selector, WorkerHub
from aal.coordination.messages import QueryBatch, Redundancy, SelectionGrant
from aal.strategies.assignment import assign
from aal.strategies.pool import CandidatePool, Labelled, Scorer
from aal.strategies.redundancy import redundancy_of
from aal.strategies.strategy import Strategy, build_strategy, passes_of, select_checked, versions_of
from aal.training.cost import selection_cost
from aal.training.devices import release_cached_memory, use_device
from aal.training.images import ImageBank, shared_bank
from aal.training.scorer import ModelScorer

log = logging.getLogger("aal")

MEASURED_SHARE = (
    0.1  # of the images that are scored: what measuring redundancy may add, else it is measured more rarely
)


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
        features: (N, d) of all images, where the run has some.
        on_features: whether strategies compare these instead of the embeddings of the model.
        count_waiting: whether what is chosen and not answered yet counts as chosen.
        networks: of the run; those of a user's own may be imported for a model file that names them.
        heartbeat: called before each batch of images.
        versions: how many of the newest versions of each model the strategy selects with.
    """

    index: int
    run: pathlib.Path
    strategy: str
    bank: ImageBank
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    features: np.ndarray | None = None
    on_features: bool = False
    count_waiting: bool = False
    heartbeat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._strategy: Strategy = build_strategy(self.strategy, self.options)
        self.versions = versions_of(self._strategy)
        self.redundancy: Redundancy | None = None

    def cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is."""
        return selection_cost(
            self.index, grant, self.strategy, len(remaining), passes_of(self._strategy), self.on_features
        )

    def select(
        self,
        grant: SelectionGrant,
        remaining: np.ndarray,
        labelled: Labelled,
        unanswered: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """Chooses the best `grant.count` of the remaining ids (paper, equation 2: S_j = strategy_j(g*, D_j)).

        Args:
            grant: the models to choose with, the size and number of the batch.
            remaining: (n,) ids of the shard that were not offered yet.
            labelled: returns the ids and labels of L; called only when the strategy asks for them.
            unanswered: returns the ids that are chosen and not answered yet; called only when they are looked at.

        Returns:
            (at most count,) ids.

        Raises:
            UserError: a model file is damaged, or the strategy returns what is no selection.
        """
        seed = derive(self.seed, "worker", self.index, grant.batch)
        models = self.models_of(grant)
        pool = CandidatePool(
            remaining,
            models,
            labelled,
            keep_embeddings=getattr(self._strategy, "uses_embeddings", True),
            seed=seed,
            features=self.features if self.on_features else None,
            waiting=unanswered() if self.count_waiting else None,
        )
        rng = np.random.RandomState(seed)  # whose stream NumPy promises for good
        chosen = select_checked(self._strategy, self.strategy, pool, grant.count, rng)
        self.redundancy = self._measured(grant, pool, chosen, models[:1], unanswered)
        release_cached_memory()
        return remaining[chosen]

    def models_of(self, grant: SelectionGrant) -> Sequence[Scorer]:
        """Returns the models that a selection is made with."""
        return self.scorers([model.path for model in grant.models])

    def scorers(self, paths: Sequence[str]) -> list[ModelScorer]:
        """Returns model files, which are read when they are first asked for a score."""
        return [
            ModelScorer(self.run / path, self.bank, slot, self.networks, self.heartbeat)
            for slot, path in enumerate(paths)
        ]

    def _measured(
        self,
        grant: SelectionGrant,
        pool: CandidatePool,
        chosen: np.ndarray,
        models: Sequence[Scorer],
        unanswered: Callable[[], np.ndarray],
    ) -> Redundancy | None:
        """Measures a selection on the features, or on the embeddings of the model that chose."""
        if self.features is not None:
            both = pool.ids[chosen], unanswered()
            return redundancy_of(*(np.asarray(self.features[ids], np.float32) for ids in both))
        if "waiting" in vars(pool):  # the strategy has embedded these already
            return redundancy_of(pool.subset(chosen).embeddings, pool.waiting.embeddings)
        scored = self.cost(grant, pool.ids).scored
        if not scored:
            return None
        waiting = unanswered()
        ids = np.concatenate([pool.ids[chosen], waiting])
        if grant.batch % math.ceil(len(ids) / (MEASURED_SHARE * scored)):
            return None
        try:
            rows = CandidatePool(ids, models, lambda: (waiting, waiting)).embeddings
        except UserError:  # the network has none, and the strategy needs none
            return None
        return redundancy_of(rows[: len(chosen)], rows[len(chosen) :])


def build(
    context: Context[WorkerHub], images: pathlib.Path, workers: int, features: pathlib.Path | None = None
) -> Worker:
    """Builds one of `workers` workers in its own process.

    Args:
        context: of the role.
        images: the folder of the prepared images.
        workers: how many there are in the run.
        features: the file of these, where the run has some.
    """
    settings, index = context.settings, context.index
    devices = settings.devices.workers
    source = features if features and learns_on_features(settings) else images / "images.npy"
    bank = shared_bank(source, use_device(devices[index % len(devices)]), context.arriving.get(source))
    return Worker(
        index,
        context.run,
        assign(settings, workers)[index],
        bank,
        settings.seed,
        settings.query_strategy_options,
        networks=tuple(one.model for one in settings.networks),
        features=np.load(features, mmap_mode="r") if features else None,
        on_features=settings.embeddings_from == "features",
        count_waiting=settings.count_waiting,
        heartbeat=context.heartbeat,
    )


async def work(worker: Selector, context: Context[WorkerHub]) -> None:
    """The role of a worker: wait for a grant, select, offer; until it may offer no more."""
    hub, clock, index = context.hub, context.clock, context.index

    def labelled() -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids and labels of L at this moment."""
        return hub.labels(0, sys.maxsize)

    def unanswered() -> np.ndarray:
        """Returns what is chosen and not answered at this moment."""
        return hub.unanswered(index)

    try:
        while True:
            grant = await clock.until(hub.grant, index, worker.versions)
            remaining = hub.remaining(index)
            started_at = clock.now()
            cost = worker.cost(grant, remaining)
            chosen = await clock.spend(cost, worker.select, grant, remaining, labelled, unanswered)
            versions = tuple(model.version for model in grant.models)
            ids, redundancy = chosen.tolist(), worker.redundancy
            hub.offer(QueryBatch(index, grant.batch, ids, worker.strategy, versions, started_at, redundancy))
            log.info("worker %d offered %d ids selected with v%d", index, len(chosen), grant.version)
    except Stopped:
        return
