"""The connection of all annotators of a process to the hub."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from aal.config.errors import Stopped
from aal.coordination.clock import Clock
from aal.coordination.interfaces import AnnotatorHub
from aal.coordination.messages import Change
from aal.coordination.query_pool import NO_QUERY


class AnnotatorClient:
    """Gathers what the annotators of one process ask and answer into few calls of the hub.

    One coroutine calls the hub, so that a thousand idle annotators make one call, and answers that come together share
    one commit.

    Args:
        hub: of the run.
        clock: the run's time.
        heartbeat: called while there is nothing to do; raises `Stopped` once the run is over.
        group: which of several groups of annotators it is of, and how many there are: annotator a of group g is number
            a * groups + g to the hub.
    """

    AT_ONCE = 1000  # draws in a call: when S is empty, it is no use to send them all
    FIRST_PAUSE_S = 0.002
    LONGEST_PAUSE_S = 0.05

    def __init__(
        self,
        hub: AnnotatorHub,
        clock: Clock,
        heartbeat: Callable[[], None] = lambda: None,
        group: tuple[int, int] = (0, 1),
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._heartbeat = heartbeat
        self._group, self._groups = group
        self._draws: deque[tuple[int, float, asyncio.Future[int]]] = deque()
        self._answers: list[tuple[int, int, int, asyncio.Future[bool]]] = []
        self._event = asyncio.Event()
        self.closed = False  # whether nothing is served any more
        self.is_over = False  # whether that is because the hub says that the run is over

    async def draw(self, annotator: int) -> int:
        """Waits for a query; returns its id, leased to this annotator. Raises `Stopped` at the end of the run."""
        return await self.request(annotator, self._clock.now())

    def request(self, annotator: int, asked_at: float) -> "asyncio.Future[int]":
        """Asks for a query for an annotator who waits since `asked_at`; one that is cancelled takes none.

        Raises:
            Stopped: the run is over.
        """
        if self.closed:
            raise Stopped
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._draws.append((self._numbered(annotator), asked_at, future))
        self._event.set()
        return future

    def draw_now(self, annotator: int, count: int) -> list[int]:
        """Returns at most `count` queries that are there, for an annotator who does not wait; none while others do.

        Raises:
            Stopped: the run is over.
        """
        if self.closed:
            raise Stopped
        if count <= 0 or any(not future.done() for *_, future in self._draws):
            return []
        try:
            drawn = self._hub.draw([self._numbered(annotator)] * count, [self._clock.now()] * count, 0)
            return [example for example in drawn if example != NO_QUERY]
        except Stopped:
            self.is_over = True
            raise

    async def answer(self, example: int, annotator: int, label: int) -> bool:
        """Gives an answer; it is on disk when this returns. False when another annotator had answered before."""
        if self.closed:
            raise Stopped
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers.append((example, self._numbered(annotator), label, future))
        self._event.set()
        return await future

    def _numbered(self, annotator: int) -> int:
        return annotator * self._groups + self._group

    def pass_on(self, example: int, annotator: int, other: int) -> bool:
        """Passes a query on to another annotator; False when that one has had it, or the lease has run out."""
        return self._hub.pass_on(example, self._numbered(annotator), self._numbered(other))

    async def run(self) -> None:
        """Serves until the run is over; then `draw` and `answer` raise `Stopped` for all who still wait."""
        pause = self.FIRST_PAUSE_S
        try:
            while True:
                moved = self._send_answers() + self._send_draws()
                pause = self.FIRST_PAUSE_S if moved else min(1.5 * pause, self.LONGEST_PAUSE_S)
                if not moved:
                    self._heartbeat()
                self._event.clear()
                poll_s = pause if self._draws else self.LONGEST_PAUSE_S
                await self._clock.changed(self._event, Change.QUERIES, poll_s)
        except Stopped:
            self.is_over = True
            with contextlib.suppress(Stopped):
                self._send_answers()
        finally:
            self.closed = True
            waiting: list[asyncio.Future[Any]] = [future for _, _, future in self._draws]
            for future in [*waiting, *(future for _, _, _, future in self._answers)]:
                if not future.done():
                    future.set_exception(Stopped())

    def _send_answers(self) -> int:
        if not self._answers:
            return 0
        ids, annotators, labels, futures = zip(*self._answers, strict=True)
        taken = self._hub.answer(ids, annotators, labels)
        del self._answers[: len(ids)]
        for future, was_taken in zip(futures, taken, strict=True):
            if not future.done():  # an answer is taken even if its annotator is gone
                future.set_result(was_taken)
        return len(ids)

    def _send_draws(self) -> int:
        before = len(self._draws)
        self._draws = deque(draw for draw in self._draws if not draw[-1].done())  # a cancelled draw takes no query
        while self._draws:
            annotators, asked_at, _ = zip(*itertools.islice(self._draws, self.AT_ONCE), strict=True)
            ids = self._hub.draw(annotators, asked_at, len(self._draws))
            blocked = []
            for example in ids:
                draw = self._draws.popleft()
                if example == NO_QUERY:
                    blocked.append(draw)
                else:
                    draw[-1].set_result(example)
            self._draws.extend(blocked)
            if blocked or len(ids) < len(annotators):
                break
        return before - len(self._draws)
