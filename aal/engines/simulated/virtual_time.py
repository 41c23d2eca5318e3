"""Virtual time: an asyncio loop that jumps from one event to the next, and the clock that roles see of it."""

import asyncio
import selectors
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from aal.config.errors import RunFailed
from aal.config.seeding import log_normal, uniforms
from aal.config.settings import CostSettings
from aal.coordination.clock import Work

T = TypeVar("T")


class VirtualSelector(selectors.SelectSelector):
    """Waits for nothing: where a loop would sleep, its time moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Moves the time on to the next event.

        Raises:
            RunFailed: there is none, so that whoever waits would wait for ever.
        """
        if timeout is None:
            raise RunFailed("every role waits for another, and nothing is under way that could wake one")
        self.time += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual; the same tasks always run in the same order."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Returns the virtual seconds since the loop began."""
        return self._virtual.time


class VirtualClock:
    """The run's time on a virtual loop: waits end when the hub says what has changed, work takes what it costs.

    Args:
        loop: the loop that the roles run on.
        costs: of work, in virtual seconds.
        seed: of the run, for the spread of the costs.
    """

    def __init__(self, loop: VirtualLoop, costs: CostSettings, seed: int) -> None:
        self._loop = loop
        self._costs = costs
        self._seed = seed
        self._waiting: dict[tuple[Hashable, ...], asyncio.Future[None]] = {}
        self._pausing: dict[asyncio.Event, None] = {}
        self.computed_s = 0.0

    def now(self) -> float:
        """Returns the virtual seconds since the run began."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Lets virtual time pass; others act meanwhile."""
        await asyncio.sleep(seconds)

    async def until(self, attempt: Callable[..., T | None], *args: Any) -> T:
        """Attempts again whenever `wake` names the attempt, as ("turn", 3) for hub.turn(3)."""
        key = (attempt.__name__, *args)
        while (result := attempt(*args)) is None:
            self._waiting[key] = self._loop.create_future()
            await self._waiting[key]
        return result

    async def pause(self, news: asyncio.Event, seconds: float) -> None:
        """Waits until the event is set, by whomever, or by `wake_all`; never for the mere passing of time."""
        self._pausing[news] = None
        await news.wait()

    async def spend(self, work: Work, act: Callable[..., T], *args: Any) -> T:
        """Works at one instant of virtual time, and lets what the work costs pass."""
        began = time.perf_counter()
        result = act(*args)
        self.computed_s += time.perf_counter() - began
        await asyncio.sleep(self.cost(work))
        return result

    def cost(self, work: Work) -> float:
        """Returns the virtual seconds that work takes; the same whenever it is done."""
        costs = self._costs
        fixed = costs.per_model_published if work.kind == "training" else costs.per_selection
        seconds = fixed + work.trained * costs.per_image_trained + work.scored * costs.per_image_scored
        pace, *_ = uniforms(self._seed, "cost", work.kind, work.role, work.number)
        return seconds * log_normal(costs.relative_std, pace)

    def wake(self, *key: Hashable) -> None:
        """Lets whoever waits for this attempt try again."""
        future = self._waiting.pop(key, None)
        if future is not None and not future.done():
            future.set_result(None)

    def wake_pausing(self) -> None:
        """Lets all who pause look for news."""
        for news in self._pausing:
            news.set()

    def wake_all(self) -> None:
        """Lets everybody try again."""
        for key in list(self._waiting):
            self.wake(*key)
        self.wake_pausing()
