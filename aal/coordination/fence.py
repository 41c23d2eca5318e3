"""Fencing: a process that counts as dead, and only was slow, changes nothing when it wakes up.

A slot is the place of one process in a run, such as `server-0`. Each process that fills it has an **incarnation**, a
number that rises with each of them, also from one hub of the run to the next. It is in every call that the process
makes and in the names of the files that it writes.
"""

import collections
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aal.config.errors import Superseded

P = ParamSpec("P")
T = TypeVar("T")

UNDER_ONE_HUB = 10**6  # more processes than ever fill a slot between two starts of a hub


class Incarnations:
    """Numbers the processes of each slot under one hub, above all that there were under the hubs before it.

    Args:
        epoch: of the record, which rises with each start of a hub, also of one that goes on with the run elsewhere.
    """

    def __init__(self, epoch: int) -> None:
        self._newest = collections.defaultdict[str, int](lambda: epoch * UNDER_ONE_HUB - 1)

    def next(self, slot: str) -> int:
        """Returns the incarnation of the next process of a slot, whose newest it is from now on."""
        self._newest[slot] += 1
        return self._newest[slot]

    def newest(self, slot: str) -> int:
        """Returns the incarnation of the newest process of a slot."""
        return self._newest[slot]


class Fence:
    """Refuses the calls of a process whose slot another one has filled since. Calls may come from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: dict[str, int] = {}
        self._under_way: collections.Counter[str] = collections.Counter()

    def admit(self, slot: str, incarnation: int) -> None:
        """Makes an incarnation the only one that may call; when it returns, no call of a former one is under way."""
        with self._changed:
            self._newest[slot] = max(incarnation, self._newest.get(slot, incarnation))
            self._changed.wait_for(lambda: not self._under_way[slot])

    def guarded(self, slot: str, incarnation: int, call: Callable[P, T]) -> Callable[P, T]:
        """Returns `call` for one incarnation of a slot: it raises `Superseded` once a newer one is admitted."""

        @functools.wraps(call)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._changed:
                if incarnation < self._newest.get(slot, incarnation):
                    raise Superseded(f"{slot}: another process has taken the place of this one")
                self._under_way[slot] += 1
            try:
                return call(*args, **kwargs)
            finally:
                with self._changed:
                    self._under_way[slot] -= 1
                    self._changed.notify_all()

        return guarded
