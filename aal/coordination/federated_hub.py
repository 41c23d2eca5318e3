"""The hub of a federated run: what clients, servers and evaluators call besides what every hub has."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aal.coordination.federated_interfaces import FederatedRecord
from aal.coordination.federation import EvaluatedModel, LocalJob, LocalModel
from aal.coordination.hub import Hub
from aal.coordination.messages import Change, ModelRef, Pending, SelectionGrant, Status
from aal.coordination.query_pool import NO_QUERY

if TYPE_CHECKING:
    from aal.coordination.schedules.federation import Federation


class FederatedHub(Hub):
    """Implements `ClientHub`, `AggregatorHub` and `EvaluatorHub`; its schedule is a `Federation`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: dict[int, int] = {}  # annotators of each client that wait for a query
        models = self._federation.models
        self._tested_version = models[-1].version if models else None  # versions are tested later, and not all

    @property
    def _federation(self) -> "Federation":
        return cast("Federation", self._schedule)

    @property
    def _federated_record(self) -> FederatedRecord:
        return cast(FederatedRecord, self._record)

    def task(self, client: int, versions: int = 1) -> LocalJob | SelectionGrant | Pending:
        """Gives a client what it has to do next; one that asks while it holds a training is given it again."""
        with self._lock:
            self._check()
            now = self._clock.now()
            task = self._federation.next_task(client, now)
            if isinstance(task, LocalJob):
                self._given_at[task.number] = now
                self._record.job_given(task, client, now)
            if isinstance(task, SelectionGrant):
                task = self._federation.with_earlier(task, versions)
            return task

    def own_labels(self, client: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and labels of a client's own images among the first `stop` of L, in order of arrival."""
        return self.labels(0, stop, client)

    def deliver(self, model: LocalModel) -> None:
        """Takes a local model whose file is in place, also after the shutdown request; it is on disk then.

        Raises:
            ValueError: the client does not hold that job.
        """
        with self._lock:
            self._federation.deliver(model)
            self._federated_record.local_model_delivered(model, self._clock.now())
            self._notify(Change.UPDATES)
        self._flush()

    def draw(self, annotators: Sequence[int], asked_at: Sequence[float], idle: int) -> list[int]:
        """Leases queries of one client to its own annotators; see `Hub.draw`."""
        ids = super().draw(annotators, asked_at, idle)
        with self._lock:
            self._idle[annotators[0] % self._pools.workers] = idle - len(ids) + ids.count(NO_QUERY)
            self._idle_annotators = sum(self._idle.values())
        return ids

    def status(self) -> Status:
        """Returns how far the run is."""
        with self._lock:
            trains = self._federation.training_clients
            return replace(super().status(), clients=trains, tested_version=self._tested_version)

    def evaluation(self, evaluator: int) -> ModelRef | Pending:
        """Gives an evaluator a version to score, the oldest first."""
        with self._lock:
            self._check()
            return self._federation.evaluations.next(evaluator) or Pending(Change.MODELS | Change.IDLE)

    def tested(self, result: EvaluatedModel) -> None:
        """Takes the test accuracy of a version, also after the shutdown request; it is on disk then."""
        with self._lock:
            self._federation.evaluations.note(result.version)
            self._federated_record.model_tested(result)
            if result.accuracy is not None:
                self._tested, self._tested_version = (result.accuracy, result.test_images), result.version
        self._flush()
        with self._lock:
            self._end_if_finished()

    def release(self, role: str, index: int) -> None:
        """Takes back what a role held that died; a client's training waits for the process that takes its place."""
        if role == "client":
            role = "worker"
        with self._lock:
            if role == "evaluator":
                self._federation.evaluations.release(index)
            if role == "annotators":
                self._idle = {}
        super().release(role, index)
        if role == "evaluator":
            self._notify(Change.MODELS)
