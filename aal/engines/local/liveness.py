"""What does not answer for too long counts as dead; only seconds in which this program ran count."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aal.engines.heartbeats import AwakeClock

TICK_S = 0.1
AFTER_SIGNAL_S = (5.0, 1.0)  # how long a call may still take after the first signal, and after a second one


@dataclass(frozen=True)
class Peer:
    """A process that main waits for.

    Attributes:
        name: as the user reads it.
        kill: ends it, even where it is stopped.
    """

    name: str
    kill: Callable[[], None]


@dataclass
class _Wait:
    limit: float
    peers: list[Peer]
    seconds: float = 0.0


class Watchdog:
    """Bounds every wait of main for the hub or the fork server: its thread kills the one that does not answer.

    Main waits in calls that nothing else ends, neither a signal nor a time limit; when the process at the other end is
    killed they fail at once, and the run goes on as after any other death.

    Args:
        caught: names of the signals that came: after one, no wait lasts longer than some seconds.
    """

    def __init__(self, caught: Sequence[str]) -> None:
        self._caught = caught
        self._wait: _Wait | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._killed: str | None = None

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @contextlib.contextmanager
    def limit(self, seconds: float, *peers: Peer) -> Iterator[None]:
        """Bounds what is done meanwhile: whenever `seconds` have passed, the next of the peers is killed."""
        self._wait = _Wait(min(seconds, self._patience), list(peers))
        try:
            yield
        finally:
            self._wait = None

    def bounded(self, target: Any, seconds: float, *peers: Peer) -> Any:
        """Returns an object with the methods of `target`, each call of which is bounded."""
        return _Bounded(target, lambda: self.limit(seconds, *peers))

    def take_killed(self) -> str | None:
        """Returns, once, who was killed and why."""
        killed, self._killed = self._killed, None
        return killed

    @property
    def _patience(self) -> float:
        return min(AFTER_SIGNAL_S[: len(self._caught)], default=float("inf"))

    def _watch(self) -> None:
        clock, patience, before = AwakeClock(), self._patience, 0.0
        while not self._ended.wait(TICK_S):
            now = clock.now()
            passed, before = now - before, now
            wait = self._wait
            if wait is None:
                continue
            wait.seconds += passed
            if patience != (patience := self._patience):
                wait.limit = min(wait.limit, wait.seconds + patience)
            if wait.seconds > wait.limit and wait.peers:
                peer = wait.peers.pop(0)
                self._killed = self._killed or f"{peer.name}: did not answer for {wait.seconds:.0f} s"
                wait.seconds = 0.0
                peer.kill()


class _Bounded:
    """See `Watchdog.bounded`."""

    def __init__(self, target: Any, limit: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._target = target
        self._limit = limit

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)

        def call(*args: Any) -> Any:
            with self._limit():
                return method(*args)

        return call
