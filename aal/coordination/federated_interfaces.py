"""What each role of a federated run sees of the hub: the images and labels of a client are in nobody else's part."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from aal.coordination.clock import Work
from aal.coordination.federation import AggregatedModel, AggregationJob, EvaluatedModel, LocalJob, LocalModel
from aal.coordination.interfaces import Selector
from aal.coordination.messages import ModelRef, Pending, QueryBatch, SelectionGrant, TrainingJob


class ClientHub(Protocol):
    """What a client may call, for itself alone. Every call returns at once and may raise `Stopped`."""

    def task(self, client: int, versions: int = 1) -> LocalJob | SelectionGrant | Pending:
        """Gives a client what it has to do next: to train on its own labels, or to select.

        Args:
            client: that asks.
            versions: how many of the newest versions of the global model it selects with.
        """
        ...

    def own_labels(self, client: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels of a client's own images among the first `stop` of L, int64 (n,)."""
        ...

    def remaining(self, client: int) -> np.ndarray:
        """Returns the ids of a client that were not offered yet, int64 (n,)."""
        ...

    def unanswered(self, client: int) -> np.ndarray:
        """Returns the ids of a client that are chosen and not answered yet, int64 (n,)."""
        ...

    def deliver(self, model: LocalModel) -> None:
        """Takes a local model, whose file is in place; returns when its record is on disk."""
        ...

    def offer(self, batch: QueryBatch) -> None:
        """Puts a selected query batch into the client's own queries."""
        ...


class AggregatorHub(Protocol):
    """What a server may call: it is given no image and no label. Every call returns at once and may raise `Stopped`."""

    def job(self, server: int) -> TrainingJob | Pending:
        """Gives an idle server an `AggregationJob`, when one is due."""
        ...

    def publish(self, trained: AggregatedModel) -> int:
        """Makes an average whose file is in place the newest version; returns it."""
        ...


class EvaluatorHub(Protocol):
    """What an evaluator may call. Every call returns at once and may raise `Stopped`."""

    def evaluation(self, evaluator: int) -> ModelRef | Pending:
        """Gives an evaluator a version to score on the test set, when one is due."""
        ...

    def tested(self, result: EvaluatedModel) -> None:
        """Takes the test accuracy of a version; returns when it is on disk."""
        ...


class ClientRunner(Selector, Protocol):
    """What the role of a client computes with: a `Client`, or its stand-in in a simulation."""

    def training_cost(self, job: LocalJob, labels: int) -> Work:
        """Returns how much a training on so many labels is."""
        ...

    def selection_cost(self, grant: SelectionGrant, remaining: np.ndarray) -> Work:
        """Returns how much a selection is, with the global model and the client's own."""
        ...

    def train(
        self, job: LocalJob, ids: np.ndarray, labels: np.ndarray, started_at: float, heartbeat: Callable[[], None]
    ) -> LocalModel:
        """Trains on the client's own labels and puts the file of its local model in place."""
        ...


class Aggregator(Protocol):
    """What the role of a server computes with: an `AverageServer`, or its stand-in in a simulation."""

    def average(self, job: AggregationJob, started_at: float, heartbeat: Callable[[], None]) -> AggregatedModel:
        """Averages local models and puts the file of the version in place."""
        ...

    def discard(self, job: AggregationJob) -> None:
        """Removes the files that nobody will read any more, when the version of a job is published."""
        ...


class Tester(Protocol):
    """What the role of an evaluator computes with: an `Evaluator`, or its stand-in in a simulation."""

    def cost(self, model: ModelRef) -> Work:
        """Returns how much the test of a version is."""
        ...

    def test(self, model: ModelRef, heartbeat: Callable[[], None]) -> EvaluatedModel:
        """Scores a version on the test set."""
        ...


class FederatedRecord(Protocol):
    """What the hub of a federated run needs of the record, besides `aal.coordination.interfaces.Record`."""

    def local_model_delivered(self, model: LocalModel, at: float) -> None:
        """Records a local training that has ended."""
        ...

    def model_tested(self, result: EvaluatedModel) -> None:
        """Records the test accuracy of a version."""
        ...


def owner_of(call: Sequence[object]) -> object:
    """Returns the client that the arguments of a call of `ClientHub` are of."""
    first = call[0]
    return first if isinstance(first, int) else getattr(first, "client", getattr(first, "worker", None))
