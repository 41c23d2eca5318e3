"""Who makes progress, and who reported why it fails."""

import threading

from aal.coordination.hub import Hub, Now
from aal.coordination.messages import Computing, Status

START_S = 60.0  # to start a process and import what it needs, on a busy machine


class HubMonitor:
    """What an engine sees of a hub; implements `Monitor` and `Heart` of `aal.coordination.interfaces`.

    Args:
        hub: of the run.
        clock: the run's time.
    """

    def __init__(self, hub: Hub, clock: Now) -> None:
        self._hub = hub
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._failures: list[str] = []

    def heartbeat(self, name: str) -> Computing:
        """Notes that a process makes progress; returns what is computed at the moment. Raises `Stopped` at the end."""
        with self._lock:
            self._beats[name] = self._clock.now()
        return self._hub.computing()

    def seconds_since_heartbeat(self) -> dict[str, float]:
        """Returns the seconds since the last heartbeat of each process."""
        with self._lock:
            now = self._clock.now()
            return {name: now - beat for name, beat in self._beats.items()}

    def report_failure(self, name: str, reason: str) -> None:
        """Keeps what a process reports of why it fails."""
        with self._lock:
            self._failures.append(f"{name}: {reason}")

    def take_failures(self) -> list[str]:
        """Returns, once, what failing processes reported, the first failure first."""
        with self._lock:
            reported, self._failures = self._failures, []
            return reported

    def expect(self, name: str) -> None:
        """Notes that a process starts: it has `START_S` more than others until its first heartbeat."""
        with self._lock:
            self._beats[name] = self._clock.now() + START_S

    def status(self) -> Status:
        """Returns how far the run is."""
        return self._hub.status()

    def release(self, role: str, index: int) -> None:
        """Takes back what a role held that died."""
        self._hub.release(role, index)

    def stop(self) -> None:
        """Requests shutdown: every role learns of it at its next call."""
        self._hub.stop()

    def close(self, ended: str) -> str | None:
        """Ends the record; returns why it could not be written to its end, or None."""
        return self._hub.close(ended)
