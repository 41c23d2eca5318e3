"""Federated active learning without rounds: nobody waits for a slow client (FedAsync: Xie et al., 2019; FedBuff)."""

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from aal.config.federated import AsynchronousSettings
from aal.config.settings import Settings
from aal.coordination.federation import TRAIN_LOCAL, LocalJob, LocalModel
from aal.coordination.messages import SelectionGrant
from aal.coordination.schedules.federation import Federation

if TYPE_CHECKING:
    from aal.coordination.client_pools import ClientPools


class FederatedAsynchronous(Federation):
    """A client trains again and again, from the newest version, on the labels that it has by then.

    The server makes a version of every `buffer` local models that arrive. A client selects between two trainings, when
    its own queries have room for a batch, so that its annotators have the next one before they have answered the last.
    The run ends `rounds` versions after every label is in the global model.
    """

    def __init__(self, settings: Settings, pools: "ClientPools") -> None:
        super().__init__(settings, pools)
        self._buffer = (self.rules.asynchronous or AsynchronousSettings()).buffer
        self._covered = [0] * pools.workers  # labels of each client that are in the newest version
        self._selected_with = [-1] * pools.workers  # job of the local model of each client's last selection

    @property
    def is_complete(self) -> bool:
        """Whether so many versions hold every label."""
        whole = takewhile(lambda model: model.labels == self.pools.labels, reversed(self.models))
        return self.all_answered and sum(1 for _ in whole) >= self.rules.rounds

    def is_tested(self, version: int) -> bool:
        """Whether a version is the last one, or one of those that `test_every`, or else `rounds`, asks for."""
        is_last = self.is_complete and not self.averages and version == self.models[-1].version
        return is_last or (version + 1) % (self.rules.test_every or self.rules.rounds) == 0

    # ------------------------------------------------------------------ trainings

    def may_train(self, client: int) -> bool:
        """Whether the run goes on."""
        return not self.is_complete

    def local_job(self, client: int) -> LocalJob:
        """Returns a training that goes on from the newest version."""
        own = self._last.get(client)
        return LocalJob(
            self.issued,
            self.pools.labels,
            kind=TRAIN_LOCAL,
            owner=client,
            start=self.models[-1] if self.models else None,
            version=self.version,
            place=self._trainings[client] * self.pools.workers + client,
            epochs_before=self._trainings[client] * self.settings.training.epochs,
            previous=own.path if own else "",
        )

    def _take(self, model: LocalModel, version: int | None = None) -> None:
        super()._take(model, version)
        if version is not None:
            self._covered[model.client] = model.labels

    # ------------------------------------------------------------------ averages

    def training_due(self) -> bool:
        """Whether the buffer is full."""
        return not self.averages and len(self._arrived) >= self._buffer and not self.is_complete

    def contributions(self) -> list[LocalModel]:
        """Returns as many as the buffer holds, in the order of their arrival."""
        models, self._arrived = self._arrived[: self._buffer], self._arrived[self._buffer :]
        return models

    def labels_of(self, models: Sequence[LocalModel]) -> int:
        """Returns how many labels the local models that were averaged so far, the last of each client, are of."""
        for model in models:
            self._covered[model.client] = model.labels
        return sum(self._covered)

    # ------------------------------------------------------------------ selections

    def may_select(self, worker: int) -> bool:
        """Whether a client has trained since its last selection, and its queries have room for a batch."""
        own = self._last.get(worker)
        if own is None or not self.models or own.job == self._selected_with[worker]:
            return False
        return self.pools.queries.of(worker).room >= self.batch_size(worker)

    def note_offer(self, worker: int, now: float) -> SelectionGrant:
        """See the base; the next selection is with another local model."""
        self._selected_with[worker] = self._last[worker].job
        return super().note_offer(worker, now)
