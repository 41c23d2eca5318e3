"""What stands for the computing of clients, servers and evaluators under `compute: none`."""

import dataclasses
from collections.abc import Callable

import numpy as np

from aal.config.settings import Settings
from aal.context import Context
from aal.coordination.clock import Work
from aal.coordination.federated_interfaces import AggregatorHub, ClientHub, EvaluatorHub
from aal.coordination.federation import AggregatedModel, AggregationJob, EvaluatedModel, LocalJob, LocalModel, Share
from aal.coordination.messages import ModelRef, SelectionGrant
from aal.coordination.partition import Sizes
from aal.engines.simulated.stand_ins import StandInWorker, worker_of
from aal.training.cost import local_training_cost


@dataclasses.dataclass(frozen=True)
class StandInClient(StandInWorker):
    """A client whose trainings and selections cost time, and give no weights and random ids.

    Attributes:
        settings: of the run.
    """

    settings: Settings = dataclasses.field(kw_only=True)

    def selection_cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection would be."""
        return dataclasses.replace(self.cost(grant, remaining), client=self.index)

    def training_cost(self, job: LocalJob, labels: int) -> Work:
        """Returns how much a training would be."""
        return local_training_cost(self.settings, self.index, job, labels)

    def train(
        self, job: LocalJob, ids: np.ndarray, labels: np.ndarray, started_at: float, heartbeat: Callable[[], None]
    ) -> LocalModel:
        """Returns a local model without a file."""
        heartbeat()
        start = job.start.version if job.start else None
        return LocalModel(job.number, self.index, job.version, len(ids), start, "", started_at)


class StandInServer:
    """A server whose averages give no file."""

    def average(self, job: AggregationJob, started_at: float, heartbeat: Callable[[], None]) -> AggregatedModel:
        """Returns a version without a file, in which every label counts alike."""
        heartbeat()
        labels = sum(one.model.labels for one in job.contributions)
        shares = [
            Share(one.model.client, one.model.job, one.model.labels / labels, one.staleness)
            for one in job.contributions
        ]
        return AggregatedModel(job.number, 0, "none", "", 0, started_at, None, None, shares=shares)

    def discard(self, job: AggregationJob) -> None:
        """Removes nothing."""


@dataclasses.dataclass(frozen=True)
class StandInEvaluator:
    """An evaluator whose tests cost time.

    Attributes:
        sizes: of the parts of the image set.
    """

    sizes: Sizes

    def cost(self, model: ModelRef) -> Work:
        """Returns how much the test of a version would be."""
        return Work("evaluation", 0, model.version, 0, self.sizes.test)

    def test(self, model: ModelRef, heartbeat: Callable[[], None]) -> EvaluatedModel:
        """Returns no accuracy."""
        return EvaluatedModel(model.version, None)


def build_client(context: Context[ClientHub], workers: int) -> StandInClient:
    """Builds the stand-in of one of `workers` clients."""
    like = worker_of(context.settings, context.index, workers)
    return StandInClient(**dataclasses.asdict(like), settings=context.settings)


def build_server(context: Context[AggregatorHub]) -> StandInServer:
    """Builds the stand-in of a server."""
    return StandInServer()


def build_evaluator(context: Context[EvaluatorHub], sizes: Sizes) -> StandInEvaluator:
    """Builds the stand-in of an evaluator."""
    return StandInEvaluator(sizes)
