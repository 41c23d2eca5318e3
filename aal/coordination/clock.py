"""The time that roles live by. They wait only through a clock, so that another one can be virtual."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from aal.coordination.messages import Change, Pending

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """Heavy work of a role, described by what makes it long.

    Attributes:
        kind: what is done.
        role: number of the server or worker that does it.
        number: of the job or the batch.
        trained: images times epochs that a model is trained on.
        scored: images that a model predicts.
        client: that does it, in a federated run; None for others.
    """

    kind: Literal["training", "selection", "evaluation"]
    role: int
    number: int
    trained: int
    scored: int
    client: int | None = None


class Now(Protocol):
    """A clock that is only read."""

    def now(self) -> float:
        """Returns the seconds since the run began."""
        ...


class Clock(Now, Protocol):
    """What a role may ask of time; all times are seconds since the run began."""

    async def sleep(self, seconds: float) -> None:
        """Lets `seconds` pass."""
        ...

    async def until(self, attempt: Callable[..., T | Pending], *args: Any) -> T:
        """Repeats `attempt(*args)`, which returns at once, until it gives something else than `Pending`."""
        ...

    async def changed(self, event: asyncio.Event, changes: Change, poll_s: float) -> None:
        """Waits until `event` is set or the hub may have changed.

        Args:
            event: set by other coroutines of the same process.
            changes: of the hub that are waited for, by a clock that is notified of them.
            poll_s: how long a clock that is not notified waits before the caller looks again.
        """
        ...

    async def spend(self, work: Work, act: Callable[..., T], *args: Any) -> T:
        """Does heavy work, `act(*args)`, and lets the time pass that it takes."""
        ...


class WallClock:
    """Real time; waiting is polling with a growing pause.

    Args:
        origin: the value of `time.monotonic()` when the run began; it is the same for all processes of a machine.
        heartbeat: called at every poll, since a role that waits makes progress too.
    """

    FIRST_PAUSE_S = 0.002
    LONGEST_PAUSE_S = 0.1

    def __init__(self, origin: float, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.origin = origin
        self._heartbeat = heartbeat

    def now(self) -> float:
        """Returns the seconds since the run began; never runs backwards."""
        return time.monotonic() - self.origin

    async def sleep(self, seconds: float) -> None:
        """Sleeps; other coroutines of this process go on."""
        await asyncio.sleep(seconds)

    async def until(self, attempt: Callable[..., T | Pending], *args: Any) -> T:
        """Polls `attempt`; what it raises, such as `Stopped`, ends the wait."""
        await asyncio.sleep(0)  # the others of this process, if there are any, have their turns too
        pause = self.FIRST_PAUSE_S
        while isinstance(result := attempt(*args), Pending):
            self._heartbeat()
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, self.LONGEST_PAUSE_S)
        return result

    async def changed(self, event: asyncio.Event, changes: Change, poll_s: float) -> None:
        """Waits for the event, at most `poll_s` seconds; the caller looks at the hub itself."""
        self._heartbeat()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), poll_s)

    async def spend(self, work: Work, act: Callable[..., T], *args: Any) -> T:
        """Works, which takes the time it takes."""
        return act(*args)
