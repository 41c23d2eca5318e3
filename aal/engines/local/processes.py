"""Processes of roles: how they start, what they inherit, and how they end with their parent."""

import asyncio
import contextlib
import faulthandler
import logging
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from aal.config.errors import RunFailed, Stopped, Superseded, UserError
from aal.config.settings import Settings
from aal.context import Context, at_most_every
from aal.coordination.clock import WallClock
from aal.coordination.messages import Computing
from aal.coordination.schedules import schedule_of
from aal.engines.base import Role
from aal.storage.run_directory import log_to, writing

HUB_GONE = (EOFError, BrokenPipeError, ConnectionError)
HEARTBEAT_S = 0.5

# Exit codes of a role's process.
USER_ERROR = 2  # only the user can mend it
WITHOUT_HUB = 3  # the hub is gone
PERMANENT = 4  # it would fail again

log = logging.getLogger("aal")


class HubLost(Exception):  # noqa: N818 - a state of the run, which may go on
    """The hub or the fork server is gone; what the hub knew is in `run.db`."""


@dataclass(frozen=True, eq=False)
class Slot:
    """One process of a role; whichever process fills it, the name stays."""

    role: Role
    index: int

    @property
    def name(self) -> str:
        """As in the log and in heartbeats."""
        return self.role.process_name(self.index)


def end_with_parent(*ignored: signal.Signals) -> None:
    """Makes this process ignore SIGINT and SIGHUP (its parent ends it), and exit when its parent is gone.

    Args:
        *ignored: further signals to ignore.
    """
    for kind in (signal.SIGINT, signal.SIGHUP, *ignored):
        signal.signal(kind, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def run_slot(slot: Slot, incarnation: int, run: pathlib.Path, settings: Settings, hub: Any, origin: float) -> None:
    """The main function of a role's process: runs the roles of a slot until the run is over.

    Args:
        slot: of the process.
        incarnation: which of the processes that fill the slot it is.
        run: the run directory.
        settings: of the run.
        hub: proxy of the part of the hub that the role sees; it takes heartbeats and failures too.
        origin: of the run's clock.
    """
    end_with_parent()
    log.addHandler(logging.NullHandler())  # where there is no log.txt, no traceback is for the terminal
    try:
        log_to(run, slot.name)
        with writing(run):
            stacks = (run / "log.txt").open("a", encoding="utf-8")  # kept open: the signal may come at any time
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
        log.info("started")
        asyncio.run(_members(slot, incarnation, run, settings, hub, origin))
    except Stopped:
        return
    except Superseded as error:
        log.warning("%s; it ends", error)
    except HUB_GONE:
        log.error("the hub is gone")
        raise SystemExit(WITHOUT_HUB) from None
    except (Exception, SystemExit) as error:  # a user's code may end the process, for which the run would wait
        log.exception("failed")
        is_known = isinstance(error, UserError | RunFailed)
        with contextlib.suppress(*HUB_GONE, Superseded):
            hub.report_failure(slot.name, str(error) if is_known else f"{type(error).__name__}: {error}")
        codes: dict[type[BaseException], int] = {UserError: USER_ERROR, RunFailed: PERMANENT}
        raise SystemExit(codes.get(type(error), 1)) from None


async def _members(
    slot: Slot, incarnation: int, run: pathlib.Path, settings: Settings, hub: Any, origin: float
) -> None:
    """Runs the roles of a slot side by side."""
    adapt = _set_up(slot.role, settings)

    def beat() -> None:
        adapt(hub.heartbeat(slot.name))

    heartbeat = at_most_every(HEARTBEAT_S, beat)
    heartbeat()
    clock = WallClock(origin, heartbeat)
    roles = (
        slot.role.run(Context(slot.name, index, run, settings, hub, clock, heartbeat, incarnation, slot.role.number))
        for index in slot.role.members(slot.index)
    )
    await asyncio.gather(*roles)


def _set_up(role: Role, settings: Settings) -> Callable[[Computing], None]:
    if role.name == "annotators":
        return lambda computing: None
    from aal.training.process import set_up_local  # loads PyTorch, which only these processes need

    takes_turns = schedule_of(settings).takes_turns
    return set_up_local("worker" if role.name == "worker" else "server", settings, takes_turns)
