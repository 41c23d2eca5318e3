"""Processes of roles: how they start, what they inherit, and how they end with their parent."""

import asyncio
import contextlib
import faulthandler
import logging
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from typing import Any

from aal.config.errors import INTERRUPTED, RunFailed, Stopped, UserError
from aal.config.registry import SCHEDULES
from aal.config.settings import Settings
from aal.context import Context, at_most_every
from aal.coordination.clock import WallClock
from aal.coordination.interfaces import Heart
from aal.coordination.messages import Computing
from aal.coordination.schedules.base import Schedule
from aal.engines.base import Role
from aal.storage.run_directory import log_to

PACKAGE = pathlib.Path(__file__).resolve().parents[3]  # the folder that holds aal
HUB_GONE = (EOFError, BrokenPipeError, ConnectionError)
HEARTBEAT_S = 0.5
MAIN_MODULE = threading.Lock()  # held while it is replaced

# Exit codes of a role's process.
USER_ERROR = 2  # only the user can mend it
WITHOUT_HUB = 3  # the hub is gone
PERMANENT = 4  # it would fail again

log = logging.getLogger("aal")


@dataclass(frozen=True, eq=False)
class Slot:
    """One process of a role; whichever process fills it, the name stays."""

    role: Role
    index: int

    @property
    def name(self) -> str:
        """As in the log and in heartbeats."""
        return self.role.process_name(self.index)


def fork_context() -> ForkServerContext:
    """Returns the context whose processes are forked from one that has imported PyTorch and never touches CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aal.engines.local.die_with_parent", "torch", "numpy", "pydantic"])
    # Started with signals blocked, which a terminal sends to all: so are its children, before their first instruction.
    with _signals_blocked(), _importable():
        ensure_running()
    return context


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Keeps processes that are started meanwhile from importing the user's script again, which would run it twice."""
    with MAIN_MODULE:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Holds signals back: what is started meanwhile never gets them, this process gets them afterwards."""
    resource_tracker.ensure_running()  # else it is started inside, and unblocks them
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.Signals[name] for name in INTERRUPTED if name != "SIGTERM"]
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets the fork server find the package, wherever the program was started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGE), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


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


def run_slot(slot: Slot, run: pathlib.Path, settings: Settings, hub: Any, heart: Heart, origin: float) -> None:
    """The main function of a role's process: runs the roles of a slot until the run is over.

    Args:
        slot: of the process.
        run: the run directory.
        settings: of the run.
        hub: proxy of the part of the hub that the role sees.
        heart: proxy that takes heartbeats and failures.
        origin: of the run's clock.
    """
    end_with_parent()
    log_to(run, slot.name)
    stacks = (run / "log.txt").open("a", encoding="utf-8")  # kept open: the signal may come at any time
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    log.info("started")
    try:
        asyncio.run(_members(slot, run, settings, hub, heart, origin))
    except Stopped:
        return
    except HUB_GONE:
        log.error("the hub is gone")
        raise SystemExit(WITHOUT_HUB) from None
    except Exception as error:
        log.exception("failed")
        is_known = isinstance(error, UserError | RunFailed)
        with contextlib.suppress(*HUB_GONE):
            heart.report_failure(slot.name, str(error) if is_known else f"{type(error).__name__}: {error}")
        codes = {UserError: USER_ERROR, RunFailed: PERMANENT}
        raise SystemExit(codes.get(type(error), 1)) from None


async def _members(slot: Slot, run: pathlib.Path, settings: Settings, hub: Any, heart: Heart, origin: float) -> None:
    """Runs the roles of a slot side by side."""
    adapt = _set_up(slot.role, settings)

    def beat() -> None:
        adapt(heart.heartbeat(slot.name))

    heartbeat = at_most_every(HEARTBEAT_S, beat)
    heartbeat()
    clock = WallClock(origin, heartbeat)
    roles = (
        slot.role.run(Context(slot.name, index, run, settings, hub, clock, heartbeat))
        for index in slot.role.members(slot.index)
    )
    await asyncio.gather(*roles)


def _set_up(role: Role, settings: Settings) -> Callable[[Computing], None]:
    if role.name not in ("server", "worker"):
        return lambda computing: None
    from aal.training.process import set_up_local  # loads PyTorch, which only these processes need

    schedule: type[Schedule] = SCHEDULES.load(settings.mode)
    return set_up_local("server" if role.name == "server" else "worker", settings, schedule.takes_turns)
