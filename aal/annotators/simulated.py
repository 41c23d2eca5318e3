"""Who answers: simulated people, and the desk through which all annotators of a process reach the hub."""

import asyncio
import contextlib
import itertools
import pathlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.config.errors import Stopped
from aal.config.seeding import log_normal, uniforms
from aal.config.settings import AnnotatorSettings, Settings
from aal.coordination.clock import Clock
from aal.coordination.hub import Hub


@dataclass
class Annotator:
    """One simulated person, whose time and label for an item depend on the seed, the person and the item alone.

    So they are the same when a run that was broken off is resumed, and in whatever order items come.

    Attributes:
        index: the person's number.
        settings: of all annotators.
        truth: the true label of every item.
        classes: number of classes.
        seed: of the run.
    """

    index: int
    settings: AnnotatorSettings
    truth: np.ndarray
    classes: int
    seed: int

    def respond(self, item: int) -> tuple[float, int]:
        """Returns the seconds that this person takes for an item, and the label given.

        The time is log-normal with the mean and the relative deviation of the settings; the label is the true one, or
        by the error rate one of the others, all alike.
        """
        pace, error, other = uniforms(self.seed, "annotator", self.index, item)
        factor = log_normal(self.settings.relative_std, pace)
        label = int(self.truth[item])
        if self.classes > 1 and error < self.settings.error_rate:
            label = (label + 1 + int(other * (self.classes - 1))) % self.classes
        return self.settings.seconds_per_label * factor, label


class Desk:
    """Gathers what the annotators of one process ask and answer into few calls of the hub.

    One coroutine speaks with the hub, so that a thousand idle annotators make one call, and answers that come together
    share one commit.
    """

    AT_ONCE = 1000  # asks in a call: when S is empty, it is no use to send them all
    FIRST_PAUSE_S = 0.002
    LONGEST_PAUSE_S = 0.05

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self._asks: deque[tuple[int, float, asyncio.Future[int]]] = deque()
        self._answers: list[tuple[int, int, int, asyncio.Future[bool]]] = []
        self._news = asyncio.Event()

    async def draw(self, annotator: int) -> int:
        """Waits for an item to label; raises `Stopped` when the run is over."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asks.append((annotator, self._clock.now(), future))
        self._news.set()
        return await future

    async def answer(self, item: int, annotator: int, label: int) -> bool:
        """Gives an answer; it is on disk when this returns. False when somebody else had answered before."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers.append((item, annotator, label, future))
        self._news.set()
        return await future

    async def run(self) -> None:
        """Serves until the run is over; those who still wait are told so."""
        pause = self.FIRST_PAUSE_S
        try:
            while True:
                moved = self._pass_answers() + self._pass_asks()
                pause = self.FIRST_PAUSE_S if moved else min(1.5 * pause, self.LONGEST_PAUSE_S)
                if not moved and not self._asks:
                    self._hub.check("annotators")
                self._news.clear()
                await self._clock.pause(self._news, pause if self._asks else self.LONGEST_PAUSE_S)
        except Stopped:
            with contextlib.suppress(Stopped):
                self._pass_answers()
        finally:
            waiting: list[asyncio.Future[Any]] = [future for _, _, future in self._asks]
            for future in [*waiting, *(future for _, _, _, future in self._answers)]:
                if not future.done():
                    future.set_exception(Stopped())

    def _pass_answers(self) -> int:
        if not self._answers:
            return 0
        items, annotators, labels, futures = zip(*self._answers, strict=True)
        taken = self._hub.answer(items, annotators, labels)
        del self._answers[: len(items)]
        for future, was_taken in zip(futures, taken, strict=True):
            future.set_result(was_taken)
        return len(items)

    def _pass_asks(self) -> int:
        before = len(self._asks)
        while self._asks:
            annotators, asked_at, _ = zip(*itertools.islice(self._asks, self.AT_ONCE), strict=True)
            items = self._hub.draw(annotators, asked_at, len(self._asks))
            for item in items:
                self._asks.popleft()[-1].set_result(item)
            if len(items) < len(annotators):
                break
        return before - len(self._asks)


async def annotate_all(annotators: Iterable[Annotator], desk: Desk, clock: Clock) -> None:
    """Lets the annotators of one process work until the run is over."""
    try:
        async with asyncio.TaskGroup() as group:
            people = [group.create_task(annotate(annotator, desk, clock)) for annotator in annotators]
            await desk.run()
            for person in people:
                person.cancel()
    except BaseExceptionGroup as failures:  # what is wrong, not that it came from a group
        raise failures.exceptions[0] from None


async def annotate(annotator: Annotator, desk: Desk, clock: Clock) -> None:
    """An annotator's day: draw a random query, take the time it needs, answer, until the run is over."""
    try:
        while True:
            item = await desk.draw(annotator.index)
            seconds, label = annotator.respond(item)
            await clock.sleep(seconds)
            await desk.answer(item, annotator.index, label)
    except Stopped:
        return


async def start(
    index: int,
    run: pathlib.Path,
    settings: Settings,
    hub: Hub,
    clock: Clock,
    truth: pathlib.Path | np.ndarray,
    classes: int,
) -> None:
    """Lets all simulated annotators of a run work in this process; `truth` is (n,) labels, or their file."""
    hub.release("annotators", index)
    truth = truth if isinstance(truth, np.ndarray) else np.load(truth, mmap_mode="r")
    people = [
        Annotator(number, settings.annotators, truth, classes, settings.seed)
        for number in range(settings.annotators.number)
    ]
    await annotate_all(people, Desk(hub, clock), clock)
