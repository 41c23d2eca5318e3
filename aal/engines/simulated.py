"""The roles as tasks of one loop whose time is virtual: the same run every time, however many roles there are.

Heavy work really computes (unless `compute: none`), at one instant of virtual time; then the time passes that it costs.
A run that was broken off is repeated from its start, which gives the same rows; models that are there are not
learned again.
"""

import asyncio
import contextvars
import importlib
import logging
import os
import pathlib
import shlex
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aal.config import Settings
from aal.engines.signals import collected
from aal.engines.supervisor import Place, Role
from aal.engines.virtual import VirtualClock, VirtualLoop
from aal.errors import INTERRUPTED, RunFailed, Stopped, UserError
from aal.hub import Hub
from aal.journal import Journal, JournalFailed
from aal.messages import Answer, Ask, Offer, Query, TrainedModel, TrainingTicket, Turn
from aal.parts import Parts
from aal.progress import Progress

SHOW_EVERY_S = 0.5
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="")

log = logging.getLogger("aal")


class WakingHub(Hub):
    """A hub that tells the virtual clock who may go on, so that nobody has to ask again and again.

    Workers wait for room in S (first come, first served) or for a model; servers for labels; annotators for queries.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        journal: Journal,
        clock: VirtualClock,
        meta: dict[str, str],
        progress: Progress,
    ) -> None:
        super().__init__(settings, parts, journal, clock, meta)
        self._virtual = clock
        self._progress = progress
        self._shown_at = 0.0
        self._wait_for_room: dict[int, int] = {}
        self._wait_for_model: dict[int, None] = {}

    def ticket(self, server: int) -> TrainingTicket | None:
        """As the hub's; the end of the run is told to everybody."""
        try:
            return super().ticket(server)
        except Stopped:
            self._virtual.wake_all()
            raise

    def publish(self, trained: TrainedModel) -> int:
        """As the hub's; workers may go on with the new model, and servers when it was the last one missing."""
        version = super().publish(trained)
        self._wake_workers()
        self._wake_servers()
        return version

    def turn(self, worker: int) -> Turn | None:
        """As the hub's; notes what a worker waits for."""
        turn = super().turn(worker)
        if turn is None:
            count = self._schedule.next_count(worker)
            if self.room < count:
                self._wait_for_room[worker] = count
            else:
                self._wait_for_model[worker] = None
        return turn

    def offer(self, offer: Offer) -> None:
        """As the hub's; annotators may go on."""
        super().offer(offer)
        self._virtual.wake_pausing()

    def draw(self, asks: list[Ask], idle: int) -> list[Query]:
        """As the hub's; workers may go on for whom there is room now."""
        leased = self.queries.leased
        served = super().draw(asks, idle)
        if served and not leased:
            self._virtual.wake("first_deadline")
        room = self.room
        while self._wait_for_room:
            worker, count = next(iter(self._wait_for_room.items()))
            if room < count:
                break
            room -= count
            del self._wait_for_room[worker]
            self._virtual.wake("turn", worker)
        return served

    def answer(self, answers: list[Answer]) -> list[bool]:
        """As the hub's; a server may go on when enough labels are there, workers when nothing else moves."""
        taken = super().answer(answers)
        self._show()
        labels, idle = len(self.labeled), self._idle
        if self._schedule.training_due(labels, idle) or self._schedule.finished(labels, idle):
            self._wake_servers()
        if idle and self._schedule.stalled(idle):
            self._wake_workers()
        return taken

    def check(self, name: str) -> None:
        """As the hub's; a person sees that long work goes on."""
        super().check(name)
        self._show()

    def stop(self) -> None:
        """As the hub's; everybody is told at once."""
        super().stop()
        self._virtual.wake_all()

    def first_deadline(self) -> float | None:
        """Returns when the first of the leases may run out; None while there is none."""
        return self.queries.first_deadline()

    def expire(self) -> None:
        """Returns queries whose lease has run out to S."""
        if self.queries.expire(self._clock.now()):
            self._virtual.wake_pausing()

    def _show(self) -> None:
        if time.monotonic() - self._shown_at > SHOW_EVERY_S:
            self._progress.show(self.status())
            self._shown_at = time.monotonic()

    def _wake_workers(self) -> None:
        waiting, self._wait_for_model = self._wait_for_model, {}
        for worker in waiting:
            self._virtual.wake("turn", worker)

    def _wake_servers(self) -> None:
        for server in range(self._settings.server_num):
            self._virtual.wake("ticket", server)


def run_simulated(
    settings: Settings, run: pathlib.Path, parts: Parts, roles: list[Role], meta: dict[str, str], progress: Progress
) -> str:
    """Runs the roles on a virtual clock until the hub is finished.

    Args:
        settings: of the run.
        run: its folder; a record of an earlier attempt is written anew.
        parts: where every item begins.
        roles: what to start.
        meta: facts for `run.db`.
        progress: where to show how far it is.

    Returns:
        How it ended: `finished`, or the name of the signal that interrupted it.

    Raises:
        RunFailed: a role failed.
        UserError: a role met what only the user can mend.
    """
    for ending in ("", "-wal", "-shm", "-journal"):
        (run / f"run.db{ending}").unlink(missing_ok=True)
    for handler in log.handlers:
        handler.addFilter(_name)
    began = time.monotonic()
    loop = VirtualLoop()
    clock = VirtualClock(loop, settings.costs, settings.seed)
    try:
        hub = WakingHub(settings, parts, Journal(run / "run.db", durable=False), clock, meta, progress)
    except (JournalFailed, Stopped) as error:
        raise RunFailed(str(error)) from None

    def interrupt() -> None:
        if len(caught) > 1:
            progress.note(f"interrupted; to go on: python main.py --resume {shlex.quote(str(run))}")
            os._exit(INTERRUPTED[caught[0]])
        hub.stop()

    failure: Exception | None = None
    with collected(2, interrupt) as caught:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_live(settings, run, roles, hub, clock))
        except Exception as error:
            failure = error
    progress.close()
    ended = "finished" if hub.status().finished else "interrupted" if caught else "failed: see the error"
    unwritten = hub.close(ended)
    log.info("took %.1f s, of which it computed %.1f s", time.monotonic() - began, clock.computed_s)
    if failure is not None:
        raise failure
    if unwritten or not (caught or ended == "finished"):
        raise RunFailed(unwritten or "every role ended before the budget was bought")
    return "finished" if ended == "finished" else caught[0]


async def _live(settings: Settings, run: pathlib.Path, roles: list[Role], hub: WakingHub, clock: VirtualClock) -> None:
    """Lets every role live its life, and leases run out."""
    leases = asyncio.create_task(_leases(hub, clock))
    try:
        async with asyncio.TaskGroup() as group:
            for role in roles:
                module, function = role.entry.split(":")
                entry: Callable[..., Coroutine[Any, Any, None]] = getattr(importlib.import_module(module), function)
                for index in range(role.number):
                    life = entry(index, run, settings, hub, clock, *role.args)
                    group.create_task(_named(Place(role, index).name, life))
    except BaseExceptionGroup as failures:  # the first one is the cause of the others
        raise failures.exceptions[0] from None
    finally:
        leases.cancel()


async def _named(name: str, life: Coroutine[Any, Any, None]) -> None:
    """Lives, under its own name in the log, and says who failed."""
    WHO.set(f"{name}: ")
    try:
        await life
    except Stopped:
        return
    except UserError:
        raise
    except RunFailed as error:
        raise RunFailed(f"{name}: {error}") from None
    except Exception as error:
        log.exception("failed")
        raise RunFailed(f"{name}: {type(error).__name__}: {error}") from None


def _name(record: logging.LogRecord) -> bool:
    """All roles share a process, and so a log; each line says whose it is."""
    record.msg = f"{WHO.get()}{record.msg}"
    return True


async def _leases(hub: WakingHub, clock: VirtualClock) -> None:
    """Returns what is not answered in time to S, at that very time."""
    while True:
        deadline = await clock.until(hub.first_deadline)
        await clock.sleep(deadline - clock.now())
        hub.expire()
