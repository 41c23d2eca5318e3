"""The roles as processes of this machine, the hub in a Manager process that they all call."""

import asyncio
import contextlib
import faulthandler
import importlib
import logging
import multiprocessing
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.managers import BaseManager, RemoteError
from multiprocessing.process import BaseProcess
from typing import Any

from aal.config.errors import INTERRUPTED, RunFailed, Stopped, UserError
from aal.config.settings import Settings
from aal.coordination.clock import WallClock
from aal.coordination.hub import Hub
from aal.coordination.parts import Parts
from aal.engines.local.supervisor import (
    FOR_GOOD,
    HUB_GONE,
    USERS_MISTAKE,
    WITHOUT_HUB,
    HubLost,
    Place,
    Role,
    Supervisor,
)
from aal.engines.signals import collected
from aal.reporting.progress import Progress
from aal.storage.journal import Journal
from aal.storage.resume_state import Past, read_past
from aal.storage.run_directory import log_to

SWITCH_S = 0.0005  # for so long one caller of the hub may keep the others waiting; Python's own 0.005 is a slow draw
ROOT = pathlib.Path(__file__).resolve().parents[3]

log = logging.getLogger("aal")


class HubManager(BaseManager):
    """The process that hosts the hub, on a unix socket in a private folder, with a random key."""


def _open_hub(
    settings: Settings, parts: Parts, path: pathlib.Path, origin: float, meta: dict[str, str], past: Past | None
) -> Hub:
    sys.setswitchinterval(SWITCH_S)
    return Hub(settings, parts, Journal(path), WallClock(origin), meta, past)


HubManager.register("hub", _open_hub, exposed=[name for name in vars(Hub) if not name.startswith("_")])


def run_local(
    settings: Settings,
    run: pathlib.Path,
    parts: Parts,
    roles: list[Role],
    meta: dict[str, str],
    progress: Progress,
    past: Past | None = None,
) -> str:
    """Runs the roles until the hub is finished.

    Args:
        settings: of the run.
        run: its folder.
        parts: where every item begins.
        roles: what to start.
        meta: facts for `run.db`.
        progress: where to show how far it is.
        past: what to go on from; None for a new run.

    Returns:
        How it ended: `finished`, or the name of the signal that interrupted it.

    Raises:
        RunFailed: a process failed for good; its name and reason.
        UserError: a role met what only the user can mend, such as a device without memory left.
    """
    restarts = 0
    with collected(2) as caught:
        while True:
            try:
                ended = _run_once(settings, run, parts, roles, meta, progress, past, caught)
                if len(caught) > 1:  # somebody is in a hurry: no report
                    progress.note(f"interrupted; to go on: python main.py --resume {shlex.quote(str(run))}")
                    os._exit(INTERRUPTED[caught[0]])
                return ended
            except HUB_GONE:
                if caught:
                    return caught[0]
                raise RunFailed("the processes could not be started") from None
            except HubLost:
                if caught:
                    return caught[0]
                cause = "hub: its process was killed"
                if settings.on_failure == "stop" or restarts >= settings.restart_limit:
                    raise RunFailed(cause) from None
                restarts += 1
                progress.note(f"{cause}; going on from run.db ({restarts} of {settings.restart_limit})")
                log.warning("%s; going on from run.db", cause)
                past = read_past(run / "run.db")


def _run_once(
    settings: Settings,
    run: pathlib.Path,
    parts: Parts,
    roles: list[Role],
    meta: dict[str, str],
    progress: Progress,
    past: Past | None,
    caught: list[str],
) -> str:
    context = multiprocessing.get_context("forkserver")
    # One process imports torch, the others are forked from it; it never touches CUDA.
    context.set_forkserver_preload(["aal.engines.local.die_with_parent", "torch", "numpy", "pydantic"])
    # Started deaf to Ctrl-C, which a terminal sends to all: so are its children, before their first instruction.
    with _deaf(), _importable():
        ensure_running()
    origin = time.monotonic() - (past.seconds if past else 0.0)
    with _manager(context) as manager:
        try:
            hub: Any = manager.hub(settings, parts, run / "run.db", origin, meta, past)  # type: ignore[attr-defined]
        except RemoteError as error:  # holds the traceback of the hub's process as text; its last line is the reason
            raise RunFailed(str(error).strip("- \n").splitlines()[-1].partition(": ")[2]) from None

        def process_of(place: Place) -> BaseProcess:
            args = (place, run, settings, hub, origin)
            return context.Process(target=_child, args=args, name=place.name, daemon=True)

        supervisor = Supervisor(settings, roles, hub, process_of, progress, caught)
        ended = "failed: see the error"
        try:
            ended = supervisor.watch()
        finally:
            supervisor.end()
            progress.close()
            with contextlib.suppress(*HUB_GONE):
                unwritten = hub.close("interrupted" if ended.startswith("SIG") else ended)
                ended = f"failed: {unwritten}" if unwritten else ended
    if ended.startswith("failed: "):
        raise RunFailed(ended.removeprefix("failed: "))
    return ended


@contextlib.contextmanager
def _manager(context: Any) -> Iterator[HubManager]:
    manager = HubManager(ctx=context)
    manager.start(_guard, (signal.SIGTERM,))  # it outlives a signal to the whole group, to write what is left
    try:
        yield manager
    finally:
        manager.shutdown()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Holds signals back: what is started meanwhile never gets them, this process gets them afterwards."""
    resource_tracker.ensure_running()  # else it is started inside, and lets them in again
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.Signals[name] for name in INTERRUPTED if name != "SIGTERM"]
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets the fork server find our own modules, wherever the program was started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _guard(*more: signal.Signals) -> None:
    """Makes a child deaf to Ctrl-C and to a terminal's end (its parent tells it), and mortal with its parent."""
    for kind in (signal.SIGINT, signal.SIGHUP, *more):
        signal.signal(kind, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="parent-watch", daemon=True).start()


def _child(place: Place, run: pathlib.Path, settings: Settings, hub: Any, origin: float) -> None:
    """The life of a role's process."""
    _guard()
    log_to(run, place.name)
    stacks = (run / "log.txt").open("a", encoding="utf-8")  # kept open: the signal may come at any time
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    log.info("started")
    module, function = place.role.entry.split(":")
    try:
        entry: Callable[..., Any] = getattr(importlib.import_module(module), function)
        asyncio.run(entry(place.index, run, settings, hub, WallClock(origin), *place.role.args))
    except Stopped:
        return
    except HUB_GONE:
        log.error("the hub is gone")
        raise SystemExit(WITHOUT_HUB) from None
    except Exception as error:
        log.exception("failed")
        known = isinstance(error, UserError | RunFailed)
        with contextlib.suppress(*HUB_GONE):
            hub.failed(place.name, str(error) if known else f"{type(error).__name__}: {error}")
        codes = {UserError: USERS_MISTAKE, RunFailed: FOR_GOOD}
        raise SystemExit(codes.get(type(error), 1)) from None
