"""What people do with queries, whatever their page looks like: draw, answer, renew, give back."""

import asyncio
import collections
import pathlib
import time
from collections.abc import Sequence

from aal.annotators.client import AnnotatorClient
from aal.coordination.clock import Clock
from aal.coordination.interfaces import PeopleHub
from aal.storage.live_figures import recorded_answer

REMEMBERED = 10_000  # answers whose repetition is known without a look at the record
STILL_WAITS_S = 5.0  # from an empty answer to the next question of a page that goes on waiting


class Desk:
    """Hands out queries and takes answers in.

    Args:
        run: the run directory.
        client: of the hub, for draws and answers.
        hub: for what needs no waiting.
        clock: the run's time.
    """

    def __init__(self, run: pathlib.Path, client: AnnotatorClient, hub: PeopleHub, clock: Clock) -> None:
        self._run, self._client, self.hub, self._clock = run, client, hub, clock
        self._waits_since: dict[int, tuple[float, float]] = {}  # annotator -> (when first asked, when last told no)
        self._answered: collections.OrderedDict[tuple[int, str], asyncio.Future[bool]] = collections.OrderedDict()
        self._undone: collections.OrderedDict[tuple[int, str], list[int]] = collections.OrderedDict()
        self.seen: dict[int, float] = {}  # annotator -> when last heard of, by time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nobody is given a query any more."""
        return self._client.is_over

    async def draw(self, annotator: int, count: int, wait_s: float) -> list[int]:
        """Leases queries to an annotator: those that are there, or else the first that comes.

        Args:
            annotator: who asks.
            count: at the most.
            wait_s: seconds to wait where there is none; 0 for an annotator who still has some, and does not wait.

        Raises:
            Stopped: the run is over.
        """
        drawn = self._client.draw_now(annotator, count)
        if drawn or not wait_s:
            return drawn
        asked_at = self._asked_at(annotator)
        future = self._client.request(annotator, asked_at)
        await asyncio.wait([future], timeout=wait_s)
        if not future.done():
            future.cancel()
            self._waits_since[annotator] = asked_at, self._clock.now()
            return []
        return [future.result(), *self._client.draw_now(annotator, count - 1)]

    def _asked_at(self, annotator: int) -> float:
        """Returns since when an annotator waits, who asks again and again."""
        now = self._clock.now()
        first, last = self._waits_since.pop(annotator, (now, now))
        return first if now - last < STILL_WAITS_S else now

    async def answer(self, annotator: int, example: int, label: int, key: str) -> bool:
        """Takes an answer in; returns when it is on disk, and whether it counts.

        The same answer may be sent again and again, until its sender knows that it has come: it counts once.

        Args:
            annotator: who answers.
            example: the id.
            label: the place of a class, or `CANNOT_TELL`.
            key: names this answer among all of the annotator.

        Raises:
            Stopped: the run is over, and the answer was not taken.
        """
        known = self._answered.get((annotator, key))
        if known is None:
            known = asyncio.ensure_future(self._answer(annotator, example, label))
            self._answered[annotator, key] = known
            if len(self._answered) > REMEMBERED:
                self._answered.popitem(last=False)
        try:
            return await asyncio.shield(known)
        except Exception:
            self._answered.pop((annotator, key), None)  # it may be tried again
            raise

    async def _answer(self, annotator: int, example: int, label: int) -> bool:
        if await self._client.answer(example, annotator, label):
            return True
        # Of a page that had its answer in before this process was started, and does not know.
        return await asyncio.to_thread(recorded_answer, self._run, example, annotator) == label

    async def undo(self, annotator: int, example: int, key: str) -> list[int]:
        """Takes an annotator's last answer back; returns its id, which the annotator has again, or nothing.

        Args:
            annotator: who takes it back.
            example: the id that was answered last, as far as the page knows.
            key: names this act among all of the annotator; when it comes again, nothing more is taken back.
        """
        known = self._undone.get((annotator, key))
        if known is None:
            if await asyncio.to_thread(recorded_answer, self._run, example, annotator) is None:
                return []  # it is taken back already
            known = self._undone[annotator, key] = await asyncio.to_thread(self.hub.undo, annotator)
            if len(self._undone) > REMEMBERED:
                self._undone.popitem(last=False)
        return known

    def skip(self, annotator: int, examples: Sequence[int]) -> None:
        """Returns ids that others are to answer."""
        if examples:
            self.hub.skip(examples, [annotator] * len(examples))

    async def correct(self, supervisor: int, example: int, label: int) -> bool:
        """Lets a supervisor decide a label; returns, when it is on disk, whether there was one."""
        (was_there,) = await asyncio.to_thread(self.hub.correct, [example], [label], supervisor)
        return was_there

    def renew(self, annotator: int, examples: Sequence[int]) -> list[bool]:
        """Lets leases last longer; returns for each whether the annotator has it."""
        return self.hub.renew(examples, [annotator] * len(examples)) if examples else []

    def give_back(self, annotator: int, examples: Sequence[int]) -> None:
        """Returns ids that an annotator will not answer to all others, and to this one."""
        if examples:
            self.hub.give_back(examples, [annotator] * len(examples))

    def note_seen(self, annotator: int) -> None:
        """Notes that an annotator's page is open."""
        self.seen[annotator] = time.monotonic()
