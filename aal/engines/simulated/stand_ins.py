"""What stands for computing under `compute: none`: it takes its time on the virtual clock and gives no model."""

import dataclasses
from collections.abc import Callable

import numpy as np

from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.interfaces import ServerHub, WorkerHub
from aal.coordination.messages import SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.partition import HeldOutLabels, Sizes
from aal.engines.base import Plan, Role
from aal.strategies.assignment import assign
from aal.strategies.strategy import build_strategy, passes_of, versions_of
from aal.training.cost import selection_cost, training_cost

FEDERATED = "aal.engines.simulated.federated_stand_ins"


def stand_ins(plan: Plan) -> Plan:
    """Returns the plan with roles that compute nothing, where its settings say so."""
    if plan.settings.compute == "full":
        return plan
    sizes, workers = plan.partition.sizes, len(plan.partition.shards)
    build: dict[str, tuple[str, tuple[object, ...]]] = {
        "server": (f"{__name__}:build_server", (sizes,)),
        "worker": (f"{__name__}:build_worker", (workers,)),
        "client": (f"{FEDERATED}:build_client", (workers,)),
        "aggregator": (f"{FEDERATED}:build_server", ()),
        "evaluator": (f"{FEDERATED}:build_evaluator", (sizes,)),
    }

    def replaced(role: Role) -> Role:
        if role.sees not in build:
            return role
        function, args = build[role.sees]
        return dataclasses.replace(role, build=function, args=args)

    return dataclasses.replace(plan, roles=[replaced(role) for role in plan.roles])


@dataclasses.dataclass(frozen=True)
class StandInServer:
    """A server whose trainings cost time and give no model.

    Attributes:
        index: its number.
        settings: of the run.
        sizes: of the parts of the image set.
    """

    index: int
    settings: Settings
    sizes: Sizes

    def cost(self, job: TrainingJob) -> Work:
        """Returns how much a training would be."""
        return training_cost(self.settings, self.index, job, self.sizes)

    def train(
        self,
        job: TrainingJob,
        ids: np.ndarray,
        labels: np.ndarray,
        started_at: float,
        heartbeat: Callable[[], None],
        held_out: HeldOutLabels | None = None,
    ) -> TrainedModel:
        """Returns a model without a file."""
        heartbeat()
        name = self.settings.networks[job.target].name if self.settings.targets else "none"
        return TrainedModel(job.number, self.index, name, "", 0, started_at, None, None)


@dataclasses.dataclass(frozen=True)
class StandInWorker:
    """A worker whose selections cost time and are random.

    Attributes:
        index: its number.
        strategy: name of the strategy that it would use.
        seed: of the run.
        versions: how many of the newest versions of each model it would select with.
        passes: of each model over the candidates.
        redundancy: is not measured.
    """

    index: int
    strategy: str
    seed: int
    versions: int = 1
    passes: int = 1
    redundancy: None = None

    def cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection would be."""
        return selection_cost(self.index, grant, self.strategy, len(remaining), self.passes)

    def select(
        self,
        grant: SelectionGrant,
        remaining: np.ndarray,
        labelled: Callable[[], tuple[np.ndarray, np.ndarray]],
        unanswered: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """Chooses `grant.count` of the remaining ids at random."""
        rng = np.random.default_rng(derive(self.seed, "worker", self.index, grant.batch))
        return remaining[np.sort(rng.choice(len(remaining), min(grant.count, len(remaining)), replace=False))]


def build_server(context: Context[ServerHub], sizes: Sizes) -> StandInServer:
    """Builds the stand-in of a server."""
    return StandInServer(context.index, context.settings, sizes)


def build_worker(context: Context[WorkerHub], workers: int) -> StandInWorker:
    """Builds the stand-in of one of `workers` workers."""
    return worker_of(context.settings, context.index, workers)


def worker_of(settings: Settings, index: int, workers: int) -> StandInWorker:
    """Returns the stand-in of one of `workers` workers."""
    name = assign(settings, workers)[index]
    strategy = build_strategy(name, settings.query_strategy_options)
    return StandInWorker(index, name, settings.seed, versions_of(strategy), passes_of(strategy))
