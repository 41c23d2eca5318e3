"""A process of a role as an actor: whether it has begun, where, and how it ended."""

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayError

from aal.engines.processes import MOVED, Slot
from aal.engines.ray.cluster import ended
from aal.engines.ray.hub_client import is_of_machine, why_lost

KILLED = -9  # the exit code of what did not end by itself
KILL_S = 2.0  # for killed actors to end


class RayProcess:
    """An actor that fills a slot; implements `Process` of `aal.engines.supervisor`.

    Args:
        slot: that it fills.
        actor: of a `RoleHost`.
        begun: the call that returns when it has a machine.
        running: the call that returns its exit code.
        machine: Ray's id of the one that it is to move to; empty where Ray chooses.

    Attributes:
        machine: where it is to begin, or has begun.
        moves: whether it was to begin on a machine that has joined.
        is_leaving: whether its shutdown was requested, for another process to begin elsewhere.
    """

    def __init__(self, slot: Slot, actor: Any, begun: Any, running: Any, machine: str = "") -> None:
        self.slot = slot
        self.running = running
        self.since = time.monotonic()
        self.is_shown = False
        self.is_leaving = False
        self.moves = bool(machine)
        self.machine = machine
        self._actor = actor
        self._begun = begun
        self._has_begun = False
        self._is_withdrawn = False
        self._ended: tuple[int, str] | None = None

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it is alive."""
        if self._ended is None and ended([self.running], 0.0):
            self._ended = self._outcome()
            self.end()
        return None if self._ended is None else self._ended[0]

    @property
    def cause(self) -> str:
        """What ended it."""
        return "" if self._ended is None else self._ended[1]

    @property
    def has_begun(self) -> bool:
        """Whether it has had a machine that was there; one that it was lost with before does not count."""
        if not (self._has_begun or self._is_withdrawn) and ended([self._begun], 0.0):
            try:
                self.machine = ray.get(self._begun)
                self._has_begun = True
            except RayError as error:
                self._has_begun = not is_of_machine(error)
        return self._has_begun

    def kill(self) -> None:
        """Kills it; one on a machine that does not answer counts as ended."""
        self.end()
        if not ended([self.running], KILL_S):
            self._ended = KILLED, "its machine does not answer"

    def withdraw(self) -> None:
        """Ends it before it has begun."""
        self._is_withdrawn = True
        self.kill()

    def _outcome(self) -> tuple[int, str]:
        try:
            code: int = ray.get(self.running)
            code = MOVED if self.is_leaving and not code else code
            return code, f"ended with exit code {code}; see log.txt"
        except RayError as error:
            return KILLED, why_lost(error)

    def end(self) -> None:
        """Ends it at once, without waiting for that."""
        with contextlib.suppress(RayError):
            ray.kill(self._actor)
