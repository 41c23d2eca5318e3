"""Processes of roles on this machine: how they start, what they inherit, and how they end with their parent."""

import faulthandler
import functools
import logging
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from aal.config.settings import Settings
from aal.coordination.clock import WallClock
from aal.coordination.messages import Computing
from aal.coordination.schedules import schedule_of
from aal.engines.base import Role
from aal.engines.processes import Slot, exit_code_of, run_roles
from aal.storage.run_directory import log_to, writing

HEARTBEAT_S = 0.5
DUMP_S = 0.5  # for a hung process to write its stack

log = logging.getLogger("aal")


class LocalProcess:
    """A process of this machine that fills a slot; implements `Process` of `aal.engines.supervisor`.

    Args:
        process: that was started.
    """

    has_begun = True

    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it is alive."""
        return None if self.process.is_alive() else self.process.exitcode

    @property
    def cause(self) -> str:
        """What ended it, as far as the system says so."""
        code = self.process.exitcode or 0
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}; see log.txt"

    def kill(self) -> None:
        """Kills it after a dump of its stack."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGUSR1)
        wait([self.process.sentinel], timeout=DUMP_S)
        self.process.kill()
        wait([self.process.sentinel], timeout=DUMP_S)


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

    def work() -> None:
        log_to(run, slot.name)
        with writing(run):
            stacks = (run / "log.txt").open("a", encoding="utf-8")  # kept open: the signal may come at any time
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
        log.info("started")
        adapt = _set_up(slot.role, settings)
        clock = functools.partial(WallClock, origin)
        run_roles(slot, incarnation, run, settings, hub, clock, lambda: adapt(hub.heartbeat(slot.name)), HEARTBEAT_S)

    if code := exit_code_of(slot.name, hub, work):
        raise SystemExit(code)


def _set_up(role: Role, settings: Settings) -> Callable[[Computing], None]:
    if role.name == "annotators":
        return lambda computing: None
    from aal.training.process import set_up_local  # loads PyTorch, which only these processes need

    takes_turns = schedule_of(settings).takes_turns
    return set_up_local("worker" if role.name == "worker" else "server", settings, takes_turns)
