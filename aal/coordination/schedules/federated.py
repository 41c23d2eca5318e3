"""Federated active learning in rounds (KAFAL, algorithm 1): cycles of communication rounds, then each client buys."""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aal.config.registry import SCHEDULES
from aal.config.seeding import derive
from aal.config.settings import Settings
from aal.coordination.federation import TRAIN_LOCAL, LocalJob, LocalModel
from aal.coordination.messages import Decision, ModelRef, SelectionGrant
from aal.coordination.schedules.federation import Federation

if TYPE_CHECKING:
    from aal.coordination.client_pools import ClientPools


@SCHEDULES.register("federated")
class Federated(Federation):
    """Version v is the average of round v % rounds of cycle v // rounds; a cycle begins with new weights.

    After the last round of a cycle each client selects its share with its own and the global model; the next cycle
    begins when all of them are answered. There is one cycle more than batches of a client. So all that a round is
    follows from the number of its version and the seed.
    """

    def __init__(self, settings: Settings, pools: "ClientPools") -> None:
        super().__init__(settings, pools)
        self._ended: set[int] = set()  # clients that have ended their training of this round
        self._in_cycle: dict[int, tuple[int, int]] = {}  # by client: a cycle, and trainings in it

    @property
    def is_complete(self) -> bool:
        """Whether the last round of the last cycle is published."""
        return len(self.models) >= self.rules.rounds * (self.settings.worker_query_num + 1)

    def cycle_of(self, version: int) -> int:
        """Returns the cycle that a version is in."""
        return version // self.rules.rounds

    def start_of(self, version: int) -> ModelRef | None:
        """Returns the version before; None in the first round of a cycle."""
        is_there = version % self.rules.rounds > 0 and version <= len(self.models)
        return self.models[version - 1] if is_there else None

    def is_tested(self, version: int) -> bool:
        """Whether a version ends a cycle, or is one of those that `test_every` asks for."""
        rounds, every = self.rules.rounds, self.rules.test_every
        return (version + 1) % rounds == 0 or (every > 0 and (version + 1) % every == 0)

    # ------------------------------------------------------------------ trainings

    def participants(self, version: int) -> set[int]:
        """Returns the clients of a round: all in the last one of a cycle, if so set, or a share drawn at random."""
        clients = range(self.pools.workers)
        if self.rules.all_in_last_round and (version + 1) % self.rules.rounds == 0:
            return set(clients)
        number = math.ceil(round(self.rules.fraction * len(clients), 9))  # 0.07 of 100 are 7.000000000000001 in floats
        if number == len(clients):
            return set(clients)
        return set(random.Random(derive(self.settings.seed, "round", version)).sample(clients, number))

    def may_train(self, client: int) -> bool:
        """Whether a client takes part in the round, whose cycle has begun, and has not trained in it."""
        version = self.version
        if self.averages or self.is_complete or client in self._ended or client not in self.participants(version):
            return False
        return version % self.rules.rounds > 0 or self._bought(self.cycle_of(version))

    def _bought(self, cycles: int) -> bool:
        """Whether every client has bought so many batches, as far as its images go, and all are answered."""
        if not self.pools.idle or self._selecting:
            return False
        return all(
            self.batches[client] >= cycles or not self.batch_size(client) for client in range(self.pools.workers)
        )

    def local_job(self, client: int) -> LocalJob:
        """Returns a training that goes on from the version of the round before."""
        version, own = self.version, self._last.get(client)
        cycle, trainings = self._in_cycle.get(client, (0, 0))
        is_first = own is None or cycle != self.cycle_of(version)
        return LocalJob(
            self.issued,
            self.pools.labels,
            kind=TRAIN_LOCAL,
            owner=client,
            start=self.start_of(version),
            version=version,
            cycle=self.cycle_of(version),
            place=version * self.pools.workers + client,
            epochs_before=0 if is_first else trainings * self.settings.training.epochs,
            previous="" if is_first or own is None else own.path,
        )

    def _take(self, model: LocalModel, version: int | None = None) -> None:
        super()._take(model, version)
        if model.version == self.version:
            self._ended.add(model.client)
        if not model.dropped_out:
            cycle = self.cycle_of(model.version)
            known, trainings = self._in_cycle.get(model.client, (cycle, 0))
            self._in_cycle[model.client] = cycle, trainings + 1 if known == cycle else 1

    # ------------------------------------------------------------------ averages

    def training_due(self) -> bool:
        """Whether every client of the round has ended its training."""
        return not self.averages and not self.is_complete and self.participants(self.version) <= self._ended

    def contributions(self) -> list[LocalModel]:
        """Returns those of the round, in the order of the clients; the next round begins."""
        models, self._arrived = sorted(self._arrived, key=lambda model: model.client), []
        self._ended = set()
        return models

    def labels_of(self, models: Sequence[LocalModel]) -> int:
        """Returns all labels, which the clients of a cycle train on together."""
        return self.pools.labels

    # ------------------------------------------------------------------ selections

    def may_select(self, worker: int) -> bool:
        """Whether the cycle of a client's next batch has ended."""
        return not self.averages and self.cycle_of(len(self.models)) > self.batches[worker]

    def grant(self, worker: int, size: int, decision: Decision | None = None) -> SelectionGrant:
        """See the base; a client that took no part in the cycle has no model of its own."""
        cycle, _ = self._in_cycle.get(worker, (-1, 0))
        if cycle != self.cycle_of(len(self.models) - 1):
            self._last.pop(worker, None)
        return super().grant(worker, size, decision)
