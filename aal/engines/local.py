"""The roles as processes of this machine, the hub in a Manager process that they all call."""

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.managers import BaseManager
from typing import Any

from aal.clock import WallClock
from aal.config import Settings
from aal.errors import RunFailed, Stopped, UserError
from aal.hub import Hub, Parts
from aal.journal import Journal
from aal.progress import Progress
from aal.runs import log_to

HUB_GONE = (EOFError, BrokenPipeError, ConnectionError)
USERS_MISTAKE = 2  # exit code of a role that met one
POLL_S = 0.2
GRACE_S = 3.0  # after the stop word, before SIGTERM


@dataclass(frozen=True)
class Role:
    """A kind of process.

    Attributes:
        name: `server`, `worker` or `annotators`.
        entry: `module:function` of a coroutine function (index, run, settings, hub, clock, *args), imported in the
            process itself, so that this one loads no torch.
        number: how many of them.
        args: what else the function takes.
    """

    name: str
    entry: str
    number: int
    args: tuple[Any, ...] = ()


class HubManager(BaseManager):
    """The process that hosts the hub, on a private unix socket with a random key."""


def _open_hub(settings: Settings, parts: Parts, path: pathlib.Path, origin: float, meta: dict[str, str]) -> Hub:
    return Hub(settings, parts, Journal(path), WallClock(origin), meta)


HubManager.register("hub", _open_hub, exposed=[name for name in vars(Hub) if not name.startswith("_")])


def run_local(
    settings: Settings, run: pathlib.Path, parts: Parts, roles: list[Role], meta: dict[str, str], progress: Progress
) -> str:
    """Runs the roles until the hub is finished.

    Args:
        settings: of the run.
        run: its folder.
        parts: where every item begins.
        roles: what to start.
        meta: facts for `run.db`.
        progress: where to show how far it is.

    Returns:
        How it ended: `finished`, or the name of the signal that interrupted it.

    Raises:
        RunFailed: a process failed; its name and reason.
        UserError: a role met what only the user can mend, such as a device that is not there.
    """
    context = multiprocessing.get_context("forkserver")
    # One process imports torch, the others are forked from it; it never touches CUDA.
    context.set_forkserver_preload(["torch", "numpy", "pydantic"])
    origin = time.monotonic()
    with _signals() as caught, _manager(context) as manager:
        hub: Any = manager.hub(settings, parts, run / "run.db", origin, meta)  # type: ignore[attr-defined]
        processes = _start(context, settings, run, roles, hub, origin)
        ended = "failed: see the error"
        try:
            ended = _supervise(processes, hub, progress, caught)
        finally:
            with contextlib.suppress(*HUB_GONE):
                hub.stop()
            _end(list(processes.values()), caught)
            progress.close()
            with contextlib.suppress(*HUB_GONE):
                hub.close("interrupted" if ended.startswith("SIG") else ended)
    if ended.startswith("failed: "):
        raise RunFailed(ended.removeprefix("failed: "))
    return ended


def _start(
    context: BaseContext, settings: Settings, run: pathlib.Path, roles: list[Role], hub: Any, origin: float
) -> dict[str, Any]:
    processes: dict[str, Any] = {}
    for role in roles:
        for index in range(role.number):
            name = role.name if role.number == 1 and role.name == "annotators" else f"{role.name}-{index}"
            args = (name, role, index, run, settings, hub, origin)
            processes[name] = context.Process(target=_child, args=args, name=name, daemon=True)  # type: ignore[attr-defined]
            processes[name].start()
    return processes


def _supervise(processes: dict[str, Any], hub: Any, progress: Progress, caught: list[str]) -> str:
    """Waits for the end; the first failure wins."""
    while True:
        if caught:
            return caught[0]
        try:
            status = hub.status()
        except HUB_GONE:
            return "failed: the hub's process is gone"
        progress.show(status)
        running = [process for process in processes.values() if process.is_alive()]
        for name, process in processes.items():
            if not process.is_alive() and process.exitcode != 0:
                cause = _cause(name, process.exitcode, hub)
                if process.exitcode == USERS_MISTAKE:
                    raise UserError(cause)
                return f"failed: {cause}"
        if not running:
            return "finished" if hub.status().finished else "failed: every role ended before the budget was bought"
        wait([process.sentinel for process in running], timeout=POLL_S)


def _cause(name: str, code: int, hub: Any) -> str:
    with contextlib.suppress(*HUB_GONE):
        for said in hub.failures():
            if said.startswith(f"{name}: "):
                return str(said)
    if code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"{name}: was killed by {signal.Signals(-code).name}{hint}"
    return f"{name}: ended with exit code {code}; see log.txt"


def _end(processes: list[Any], caught: list[str]) -> None:
    """Joins all processes: first they are asked, then told, then killed; at once on a second signal."""
    for act, seconds in ((None, GRACE_S), ("terminate", 1.0), ("kill", 1.0)):
        alive = [process for process in processes if process.is_alive()]
        if act is not None:
            for process in alive:
                getattr(process, act)()
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline and len(caught) < 2:
            wait([process.sentinel for process in alive], timeout=0.05)
            alive = [process for process in alive if process.is_alive()]


@contextlib.contextmanager
def _manager(context: BaseContext) -> Iterator[HubManager]:
    manager = HubManager(ctx=context)
    manager.start(_guard, (signal.SIGTERM,))  # it outlives a signal to the whole group, to write what is left
    try:
        yield manager
    finally:
        manager.shutdown()


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Collects the names of the signals that ask for an end, instead of dying of them."""
    caught: list[str] = []
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, lambda number, _: caught.append(signal.Signals(number).name)) for kind in kinds}
    try:
        yield caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


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


def _child(name: str, role: Role, index: int, run: pathlib.Path, settings: Settings, hub: Any, origin: float) -> None:
    """The life of a role's process."""
    _guard()
    log = log_to(run, name)
    log.info("started")
    module, function = role.entry.split(":")
    try:
        entry: Callable[..., Any] = getattr(importlib.import_module(module), function)
        asyncio.run(entry(index, run, settings, hub, WallClock(origin), *role.args))
    except Stopped:
        return
    except HUB_GONE:
        log.error("the hub is gone")
        raise SystemExit(3) from None
    except Exception as error:
        log.exception("failed")
        mistake = isinstance(error, UserError)
        with contextlib.suppress(*HUB_GONE):
            hub.failed(name, str(error) if mistake else f"{type(error).__name__}: {error}")
        raise SystemExit(USERS_MISTAKE if mistake else 1) from None
