"""What gives no heartbeat for too long counts as dead.

Only seconds in which this program ran count: the machine's sleep, or a Ctrl-Z of the whole group, is not a hang.
"""

import time
from collections.abc import Mapping

START_S = 60.0  # to start a process and import what it needs, on a busy machine
LOOK_S = 1.0  # between two looks at the clock at the most, while this program runs


class AwakeClock:
    """Seconds in which this program ran, for one that looks at it more often than every `LOOK_S`."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._awake = 0.0

    def now(self) -> float:
        """Returns the seconds since the first look."""
        now = time.monotonic()
        self._awake += min(now - self._looked_at, LOOK_S)
        self._looked_at = now
        return self._awake


class Heartbeats:
    """Since when each process has given no heartbeat."""

    def __init__(self) -> None:
        self._clock = AwakeClock()
        self._counts: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def expect(self, name: str) -> None:
        """Notes that a process starts: it has `START_S` more than others until its first heartbeat."""
        self._since[name] = self._clock.now() + START_S

    def note(self, counts: Mapping[str, int]) -> None:
        """Notes how many heartbeats each process has given."""
        now = self._clock.now()
        for name, count in counts.items():
            if count != self._counts.get(name):
                self._counts[name], self._since[name] = count, now

    def silent_s(self, name: str) -> float:
        """Returns the seconds since the last heartbeat of a process."""
        return self._clock.now() - self._since[name]
