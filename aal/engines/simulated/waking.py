"""The hub of the simulated engine: it says who may go on, so that nobody has to ask again and again."""

import time
from collections.abc import Sequence

from aal.config.errors import Stopped
from aal.config.settings import Settings
from aal.coordination.hub import Hub
from aal.coordination.messages import Computing, QueryBatch, SelectionGrant, TrainedModel, TrainingJob
from aal.coordination.parts import Parts
from aal.engines.simulated.virtual_time import VirtualClock
from aal.reporting.progress import Progress
from aal.storage.journal import Journal

SHOW_EVERY_S = 0.5


class WakingHub(Hub):
    """A hub that tells the virtual clock who may go on, so that nobody has to ask again and again.

    Workers wait for room in S (first come, first served) or for a model; servers for labels; annotators for queries.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        journal: Journal,
        clock: VirtualClock,
        meta: dict[str, str],
        progress: Progress,
    ) -> None:
        super().__init__(settings, parts, journal, clock, meta)
        self._virtual = clock
        self._progress = progress
        self._shown_at = 0.0
        self._wait_for_room: dict[int, int] = {}
        self._wait_for_model: dict[int, None] = {}

    def ticket(self, server: int) -> TrainingJob | None:
        """As the hub's; the end of the run is told to everybody."""
        try:
            return super().ticket(server)
        except Stopped:
            self._virtual.wake_all()
            raise

    def publish(self, trained: TrainedModel) -> int:
        """As the hub's; workers may go on with the new model, and servers when it was the last one missing."""
        version = super().publish(trained)
        self._wake_workers()
        self._wake_servers()
        return version

    def turn(self, worker: int) -> SelectionGrant | None:
        """As the hub's; notes what a worker waits for."""
        turn = super().turn(worker)
        if turn is None:
            count = self._schedule.next_count(worker)
            if self.room < count:
                self._wait_for_room[worker] = count
            else:
                self._wait_for_model[worker] = None
        return turn

    def offer(self, offer: QueryBatch) -> None:
        """As the hub's; annotators may go on."""
        super().offer(offer)
        self._virtual.wake_pausing()

    def draw(self, annotators: Sequence[int], asked_at: Sequence[float], idle: int) -> list[int]:
        """As the hub's; workers may go on for whom there is room now."""
        leased = self.queries.leased
        served = super().draw(annotators, asked_at, idle)
        if served and not leased:
            self._virtual.wake("first_deadline")
        room = self.room
        while self._wait_for_room:
            worker, count = next(iter(self._wait_for_room.items()))
            if room < count:
                break
            room -= count
            del self._wait_for_room[worker]
            self._virtual.wake("turn", worker)
        return served

    def answer(self, items: Sequence[int], annotators: Sequence[int], labels: Sequence[int]) -> list[bool]:
        """As the hub's; a server may go on when enough labels are there, workers when nothing else moves."""
        taken = super().answer(items, annotators, labels)
        self._show()
        known, idle = len(self.labeled), self._idle
        if self._schedule.training_due(known, idle) or self._schedule.finished(known, idle):
            self._wake_servers()
        if idle and self._schedule.stalled(idle):
            self._wake_workers()
        return taken

    def check(self, name: str) -> Computing:
        """As the hub's; a person sees that long work goes on."""
        computing = super().check(name)
        self._show()
        return computing

    def stop(self) -> None:
        """As the hub's; everybody is told at once."""
        super().stop()
        self._virtual.wake_all()

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases may run out; None while there is none."""
        return self.queries.first_deadline()

    def expire(self) -> None:
        """Returns queries whose lease has run out to S."""
        if self.queries.expire(self._clock.now()):
            self._virtual.wake_pausing()

    def _flush(self) -> None:
        """As the hub's; a record that cannot be written ends the run for everybody."""
        try:
            super()._flush()
        except Stopped:
            self._virtual.wake_all()
            raise

    def _show(self) -> None:
        if time.monotonic() - self._shown_at > SHOW_EVERY_S:
            self._progress.show(self.status())
            self._shown_at = time.monotonic()

    def _wake_workers(self) -> None:
        waiting, self._wait_for_model = self._wait_for_model, {}
        for worker in waiting:
            self._virtual.wake("turn", worker)

    def _wake_servers(self) -> None:
        for server in range(self._settings.server_num):
            self._virtual.wake("ticket", server)
