"""What people in front of a page call of the hub: leases that last while it is open, a pause, and an end."""

from collections.abc import Sequence

from aal.coordination.annotator_calls import AnnotatorCalls
from aal.coordination.messages import Change


class Attendance(AnnotatorCalls):
    """The part of the hub that implements `PeopleHub`, but for the status.

    Attributes:
        interrupted: whether somebody has asked for the end of the run.
    """

    interrupted = False

    def renew(self, ids: Sequence[int], annotators: Sequence[int]) -> list[bool]:
        """Lets leases last from now on as long as new ones; returns for each whether the annotator has it.

        One that ran out, or that a former hub gave, begins again while nobody else has the id.

        Args:
            ids: on lease.
            annotators: to whom, each.
        """
        with self._lock:
            self._check()
            deadline = self._clock.now() + self._lease_s
            renewed = [self._pools.queries.renew(*lease, deadline) for lease in zip(ids, annotators, strict=True)]
            self._notify(Change.LEASES)
            return renewed

    def give_back(self, ids: Sequence[int], annotators: Sequence[int]) -> None:
        """Returns leased ids to S without an answer, as far as the annotators have them."""
        with self._lock:
            self._check()
            for example, annotator in zip(ids, annotators, strict=True):
                self._pools.queries.give_back(example, annotator)
            self._notify(Change.QUERIES)

    def skip(self, ids: Sequence[int], annotators: Sequence[int]) -> None:
        """Returns leased ids to S for other annotators; these have them again when nothing else is to come."""
        with self._lock:
            self._check()
            for example, annotator in zip(ids, annotators, strict=True):
                self._pools.queries.put_off(example, annotator)
            self._notify(Change.QUERIES)

    def pause(self, is_paused: bool) -> None:
        """Lets nobody have a query until it is called again; what is drawn already may be answered."""
        with self._lock:
            self._check()
            self.paused = is_paused
            self._notify(Change.QUERIES)

    def interrupt(self) -> None:
        """Asks for the end of the run, as Ctrl-C does: nothing is lost, and it can be resumed."""
        with self._lock:
            self._check()
            self.interrupted = True
