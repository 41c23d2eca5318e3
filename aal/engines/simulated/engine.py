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

from aal.config.errors import INTERRUPTED, RunFailed, Stopped, UserError
from aal.config.settings import Settings
from aal.coordination.parts import Parts
from aal.engines.local.supervisor import Place, Role
from aal.engines.signals import collected
from aal.engines.simulated.virtual_time import VirtualClock, VirtualLoop
from aal.engines.simulated.waking import WakingHub
from aal.reporting.progress import Progress
from aal.storage.journal import Journal, JournalFailed

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="")

log = logging.getLogger("aal")


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
        loop.call_soon(hub.stop)  # once more, for whoever was just about to wait

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
    if unwritten:  # whatever else failed, failed because of it
        raise RunFailed(unwritten)
    if caught and ended != "finished":
        return caught[0]
    if failure is not None:
        raise failure
    if ended != "finished":
        raise RunFailed("every role ended before the budget was bought")
    return ended


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
