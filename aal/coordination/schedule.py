"""When a training is due, when a worker may choose: the rules between the pools, without any waiting in them."""

from collections.abc import Sequence

from aal.config.settings import Settings
from aal.coordination.messages import Computing, TrainingJob
from aal.storage.resume_state import Past


class Schedule:
    """Who may do what next. `labels` is always the size of L, `idle` whether S is empty and nothing is leased.

    Args:
        settings: of the run.
        shard_sizes: unlabelled items of each worker.
    """

    def __init__(self, settings: Settings, shard_sizes: Sequence[int]) -> None:
        self._settings = settings
        self.left = list(shard_sizes)
        self.batches = [0] * len(self.left)
        self.offered = 0
        self.versions = 0
        self.issued = 0
        self.ticketed = 0
        self.held: dict[int, tuple[int, TrainingJob]] = {}
        self._returned: list[TrainingJob] = []
        self._idle_servers: dict[int, None] = {}
        self._choosing: dict[int, int] = {}
        self.promised = 0

    def resume(self, past: Past) -> None:
        """Goes on where a former run ended: what was offered and trained counts, tickets without a model return."""
        for worker, items in past.batches:
            self.note_offer(worker, items)
        self.versions = len(past.models)
        self.issued = len(past.tickets)
        self.ticketed = max((ticket.labels for ticket in past.tickets), default=0)
        done = {number for _, number in past.models}
        self._returned = [ticket for ticket in past.tickets if ticket.number not in done]

    @property
    def computing(self) -> Computing:
        """Who holds a ticket or a turn, and so computes."""
        return Computing(len(self.held), len(self._choosing))

    # ------------------------------------------------------------------ trainings

    def take_ticket(self, server: int, labels: int, idle: bool) -> TrainingJob | None:
        """Gives an idle server a ticket when a training is due and no other server has waited longer.

        A server that asks while it holds one never heard of it, for it died; it is given the same again.
        """
        for holder, ticket in self.held.values():
            if holder == server:
                return ticket
        self._idle_servers.setdefault(server)
        if next(iter(self._idle_servers)) != server:
            return None
        if self._returned:
            ticket = self._returned.pop(0)
        elif self.training_due(labels, idle):
            ticket = TrainingJob(self.issued, labels)
            self.issued += 1
            self.ticketed = labels  # a surplus over the threshold is absorbed
        else:
            return None
        del self._idle_servers[server]
        self.held[ticket.number] = (server, ticket)
        return ticket

    def return_tickets(self, server: int) -> None:
        """Takes back what a dead server held; its tickets go to the next idle server before any other."""
        self._idle_servers.pop(server, None)
        for number in [number for number, (holder, _) in self.held.items() if holder == server]:
            self._returned.append(self.held.pop(number)[1])

    def published(self, number: int, server: int) -> TrainingJob:
        """Settles a ticket; the model trained for it becomes the newest version.

        Raises:
            ValueError: the server does not hold that ticket (it was given to another).
        """
        holder, ticket = self.held.get(number, (None, None))
        if ticket is None or holder != server:
            raise ValueError(f"server {server} does not hold ticket {number}")
        del self.held[number]
        self.versions += 1
        return ticket

    def finished(self, labels: int, idle: bool) -> bool:
        """Whether every label that can be bought is bought and in a published model."""
        return self._all_answered(idle) and labels == self.ticketed and not self.held and not self._returned

    def training_due(self, labels: int, idle: bool) -> bool:
        """Whether L has grown so far, or nothing else can move any more, that a server may train."""
        growth = labels - self.ticketed
        if self.issued == 0 or (growth > 0 and self._all_answered(idle)):
            return True
        if growth == 0 or self._trainings_spent():
            return False
        return growth >= self._settings.server_train_threshold or self.stalled(idle)

    def _trainings_spent(self) -> bool:
        """Whether only the last of `server_train_num` trainings, which uses every label, is left."""
        limit = self._settings.server_train_num
        return limit is not None and self.issued >= limit  # the initial training counts among the issued

    # ------------------------------------------------------------------ selections

    def next_count(self, worker: int) -> int:
        """Returns the size of a worker's next batch; 0 when it has offered all that it may."""
        s = self._settings
        if s.mode == "sync":  # one worker owns the whole pool and chooses a whole round
            most = min(s.server_train_threshold, s.budget - self.offered)
        else:
            most = s.query_batch if self.batches[worker] < s.worker_query_num else 0
        return min(most, self.left[worker])

    def still_to_offer(self) -> int:
        """Returns how many items the workers will yet offer."""
        s = self._settings
        if s.mode == "sync":
            return min(s.budget - self.offered, sum(self.left))
        most = [(s.worker_query_num - batches) * s.query_batch for batches in self.batches]
        return sum(map(min, most, self.left))

    def admits(self, worker: int, labels: int, idle: bool) -> bool:
        """Whether a worker may choose with the newest model: within the bound, or when no newer one can come."""
        if not self.versions:
            return False
        spent = self._trainings_spent()
        if spent and not self.held and not self._returned and self._settings.mode == "async":
            return True
        return self._within_bound(worker) or ((spent or labels == self.ticketed) and self.stalled(idle))

    def begin_choosing(self, worker: int) -> None:
        """Notes that a worker is choosing its next batch, for which there is to be room in S."""
        self.stop_choosing(worker)
        self._choosing[worker] = self.next_count(worker)
        self.promised += self._choosing[worker]

    def is_choosing(self, worker: int) -> bool:
        """Whether a worker has the turn to choose a batch."""
        return worker in self._choosing

    def stop_choosing(self, worker: int) -> None:
        """Notes that a worker, dead or done, chooses no longer."""
        self.promised -= self._choosing.pop(worker, 0)

    def note_offer(self, worker: int, count: int) -> None:
        """Counts a batch of `count` items that a worker has put into S."""
        self.left[worker] -= count
        self.batches[worker] += 1
        self.offered += count
        self.stop_choosing(worker)

    def _within_bound(self, worker: int) -> bool:
        """Batch b belongs to round b * round_size // threshold and needs version round - max_staleness."""
        s = self._settings
        if s.mode == "sync":
            return False  # chooses only when all else is done: see stalled
        if s.max_staleness is None:
            return True
        labelling_round = self.batches[worker] * s.round_size // s.server_train_threshold
        return self.versions - 1 >= labelling_round - s.max_staleness

    def _all_answered(self, idle: bool) -> bool:
        return idle and not self.still_to_offer()

    def stalled(self, idle: bool) -> bool:
        """Whether nothing moves any more unless somebody is let through.

        A threshold that is no multiple of a round, or surplus labels that a ticket absorbed, can leave fewer versions
        than the bound counts on. And it is what `mode: sync` waits for: every label answered, every training done.
        """
        if not idle or self._choosing or self.held or self._returned or not self.versions:
            return False
        active = (worker for worker in range(len(self.left)) if self.next_count(worker))
        return not any(self._within_bound(worker) for worker in active)
