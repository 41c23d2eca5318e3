"""Who makes progress, and who reported why it fails."""

import collections
import dataclasses
import threading

from aal.coordination.hub import Hub
from aal.coordination.messages import Computing, Status


class HubMonitor:
    """What an engine sees of a hub; implements `Monitor` and `Heart` of `aal.coordination.interfaces`.

    Args:
        hub: of the run.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._beats: collections.Counter[str] = collections.Counter()
        self._failures: list[str] = []
        self._free_cores: float | None = None
        self._measured, self._free_sum = 0, 0.0

    def heartbeat(self, name: str) -> Computing:
        """Notes that a process makes progress; returns what is computed at the moment. Raises `Stopped` at the end."""
        with self._lock:
            self._beats[name] += 1
            free_cores = self._free_cores
        return dataclasses.replace(self._hub.computing(), free_cores=free_cores)

    def heartbeats(self) -> dict[str, int]:
        """Returns how many heartbeats each process has given."""
        with self._lock:
            return dict(self._beats)

    def report_failure(self, name: str, reason: str) -> None:
        """Keeps what a process reports of why it fails."""
        with self._lock:
            self._failures.append(f"{name}: {reason}")

    def take_failures(self) -> list[str]:
        """Returns, once, what failing processes reported, the first failure first."""
        with self._lock:
            reported, self._failures = self._failures, []
            return reported

    def share_cores(self, free_cores: float) -> None:
        """Lets every role know, at its next heartbeat, how many cores other programs leave to the run."""
        with self._lock:
            self._free_cores = free_cores
            self._measured, self._free_sum = self._measured + 1, self._free_sum + free_cores

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
        with self._lock:
            facts = {"free_cores": f"{self._free_sum / self._measured:.1f}"} if self._measured else {}
        return self._hub.close(ended, **facts)
