"""The time that roles live by. They wait only through a clock, so that another one can be virtual."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What a role may ask of time; all times are seconds since the run began."""

    def now(self) -> float:
        """Returns the seconds since the run began."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Lets `seconds` pass."""
        ...

    async def until(self, attempt: Callable[..., T | None], *args: Any) -> T:
        """Repeats `attempt(*args)`, which returns at once, until it gives something else than None."""
        ...


class WallClock:
    """Real time; waiting is polling with a growing pause.

    Args:
        origin: the value of `time.monotonic()` when the run began; it is the same for all processes of a machine.
    """

    FIRST_PAUSE_S = 0.002
    LONGEST_PAUSE_S = 0.1

    def __init__(self, origin: float) -> None:
        self.origin = origin

    def now(self) -> float:
        """Returns the seconds since the run began; never runs backwards."""
        return time.monotonic() - self.origin

    async def sleep(self, seconds: float) -> None:
        """Sleeps; other coroutines of this process go on."""
        await asyncio.sleep(seconds)

    async def until(self, attempt: Callable[..., T | None], *args: Any) -> T:
        """Polls `attempt`; what it raises, such as `Stopped`, ends the wait."""
        pause = self.FIRST_PAUSE_S
        while (result := attempt(*args)) is None:
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, self.LONGEST_PAUSE_S)
        return result
