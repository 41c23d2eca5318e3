"""Virtual time: an asyncio loop that jumps from one event to the next, and the clock that roles see of it."""

import asyncio
import math
import selectors
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from aal.config.errors import RunFailed
from aal.config.seeding import log_normal, uniforms
from aal.config.settings import CostSettings
from aal.coordination.clock import Work
from aal.coordination.messages import Change, Pending

T = TypeVar("T")
RESOLUTION = time.get_clock_info("monotonic").resolution  # that asyncio adds to its time


class VirtualSelector(selectors.SelectSelector):
    """Never waits: where a loop would sleep, its time moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Moves the time on to the next event.

        Raises:
            RunFailed: there is none, so that all tasks would wait for ever.
        """
        if timeout is None:
            raise RunFailed("every role waits for another, and nothing is under way that could wake one")
        self.time += max(0.0, timeout)
        if self.time + RESOLUTION == self.time:  # asyncio takes as due what is before now + its resolution
            self.time = math.nextafter(self.time, math.inf)
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
    """The run's time on a virtual loop: waits end when the hub emits a change, work takes what it costs.

    Args:
        loop: the loop that the roles run on.
        costs: of work, in virtual seconds.
        seed: of the run, for the deviation of the costs.
    """

    def __init__(self, loop: VirtualLoop, costs: CostSettings, seed: int) -> None:
        self._loop = loop
        self._costs = costs
        self._seed = seed
        self._watching: dict[Change, dict[object, _Waiter]] = {change: {} for change in Change}
        self._lines: dict[str, dict[object, _Waiter]] = {}  # by kind of attempt, first come, first served
        self._events: dict[asyncio.Event, Change] = {}
        self.computed_s = 0.0

    def now(self) -> float:
        """Returns the virtual seconds since the run began."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Lets virtual time pass; other tasks go on meanwhile."""
        await asyncio.sleep(seconds)

    async def until(self, attempt: Callable[..., T | Pending], *args: Any) -> T:
        """Attempts again whenever the hub emits a change that the last attempt was pending on, or at the time it named.

        Of those that wait in turn for the same kind of attempt only the first tries again, and keeps its place when it
        tries in vain; the next one tries when a waiter of this kind has been served or has left.
        """
        line = self._lines.setdefault(getattr(attempt, "__name__", ""), {})
        place = object()
        try:
            while isinstance(result := attempt(*args), Pending):
                waiter = _Waiter(self._loop.create_future(), result.until | Change.STOP)
                if result.in_turn:
                    line[place] = waiter
                    alarm = None if result.at is None else self._loop.call_at(result.at, _wake, waiter)
                    await waiter.future
                    if alarm is not None:
                        alarm.cancel()
                    continue
                self._leave(line, place)
                for change in waiter.changes:
                    self._watching[change][place] = waiter
                try:
                    await waiter.future
                finally:
                    for change in waiter.changes:
                        del self._watching[change][place]
            return result
        finally:
            line.pop(place, None)
            _wake(next(iter(line.values()), None))

    def _leave(self, line: "dict[object, _Waiter]", place: object) -> None:
        """Leaves a line without being served; the next one may try."""
        if line.pop(place, None) is not None:
            _wake(next(iter(line.values()), None))

    async def changed(self, event: asyncio.Event, changes: Change, poll_s: float) -> None:
        """Waits until the event is set, by another task or by a change of the hub; never polls."""
        self._events[event] = changes | Change.STOP
        await event.wait()

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
        fixed = {"training": costs.per_model_published, "selection": costs.per_selection}.get(work.kind, 0.0)
        seconds = fixed + work.trained * costs.per_image_trained + work.scored * costs.per_image_scored
        if work.client is not None and costs.client_factors:
            seconds *= costs.client_factors[work.client % len(costs.client_factors)]
        pace, *_ = uniforms(self._seed, "cost", work.kind, work.role, work.number)
        return seconds * log_normal(costs.relative_std, pace)

    def notify(self, changes: Change) -> None:
        """Wakes who waits for one of the changes: every watcher, and the first of each line."""
        for change in changes:
            for waiter in self._watching[change].values():
                _wake(waiter)
        for line in self._lines.values():
            first = next(iter(line.values()), None)
            if first is not None and first.changes & changes:
                _wake(first)
        if changes & Change.STOP:
            for line in self._lines.values():
                for waiter in line.values():
                    _wake(waiter)
        for event, wanted in self._events.items():
            if wanted & changes:
                event.set()


class _Waiter(NamedTuple):
    """A task that waits for changes."""

    future: "asyncio.Future[None]"
    changes: Change


def _wake(waiter: _Waiter | None) -> None:
    if waiter is not None and not waiter.future.done():
        waiter.future.set_result(None)
