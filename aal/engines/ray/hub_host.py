"""The hub as an actor: it hosts the hub with its record, and writes the log of all roles."""

import logging
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from aal import __version__
from aal.config.errors import RecordFailed, Refused, Stopped, Superseded, UserError
from aal.coordination.parts import WORK
from aal.engines.base import Plan
from aal.engines.hosting import HostedHub
from aal.storage.run_directory import log_to, writing

CALLS_AT_ONCE = 32  # so that answers which come together share a commit

log = logging.getLogger("aal")

Reply = tuple[float, Any, BaseException | None]  # the run's time, and what a call returned or raised


class HubHost:
    """Hosts the hub of a run; its methods are called from other machines.

    What a call of the hub raises is returned: as an error of Ray it would lose its type.
    """

    def __init__(self) -> None:
        log.addHandler(logging.NullHandler())
        self._hub: HostedHub
        self._run: pathlib.Path
        self._parts: dict[tuple[str, int], dict[str, Callable[..., Any]]] = {}
        self._leaving: set[tuple[str, int]] = set()
        self._log_lock = threading.Lock()

    def begun(self) -> None:
        """Returns when there is a machine for this actor."""

    def open(self, plan: Plan, sign: pathlib.Path, version: str) -> Reply:
        """Opens the hub of a plan.

        Args:
            plan: of the run.
            sign: a file in the run's folder, by which a machine knows that it sees the folder.
            version: of this program where the command runs.
        """
        if problem := _problem_of_place(sign, version):
            error = f"ray.pins.hub: the machine that it names {problem}"
            return 0.0, None, UserError(error) if plan.resume else Refused(error)
        try:
            self._run = plan.run
            self._hub = HostedHub(plan, time.monotonic() - (plan.resume.seconds if plan.resume else 0.0))
        except (UserError, RecordFailed) as error:
            return 0.0, None, error
        log_to(plan.run, "hub")
        log.info("started")
        return self._hub.clock.now(), None, None

    def admit(self, part: str, slot: str, incarnation: int, members: Sequence[int]) -> Reply:
        """Makes an incarnation the only one of its slot that the hub listens to."""
        self._parts[slot, incarnation] = self._hub.part(part, slot, incarnation, members)
        return self._hub.clock.now(), None, None

    def leave(self, processes: Sequence[tuple[str, int]]) -> Reply:
        """Requests shutdown of some processes: each ends when it has done what it does at the moment.

        Args:
            processes: slot and incarnation of each.
        """
        self._leaving.update(processes)
        return self._hub.clock.now(), None, None

    def call(self, slot: str, incarnation: int, name: str, args: Sequence[Any]) -> Reply:
        """Makes a call of a role's part of the hub."""
        calls = self._parts.get((slot, incarnation))
        if calls is None:  # another hub admitted it
            return self._hub.clock.now(), None, Superseded(f"{slot}: the hub does not know this process")
        if name in WORK and (slot, incarnation) in self._leaving:
            return self._hub.clock.now(), None, Stopped()
        return self._replied(calls[name], args)

    def monitor(self, name: str, args: Sequence[Any]) -> Reply:
        """Makes a call of the hub's monitor."""
        return self._replied(getattr(self._hub.monitor, name), args)

    def write_log(self, line: str) -> None:
        """Adds a line of a role to the run's log."""
        with self._log_lock, writing(self._run), (self._run / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _replied(self, call: Callable[..., Any], args: Sequence[Any]) -> Reply:
        try:
            result, error = call(*args), None
        except Exception as raised:
            result, error = None, raised.with_traceback(None)
        return self._hub.clock.now(), result, error


def _problem_of_place(sign: pathlib.Path, version: str) -> str:
    """Returns why the hub cannot run here; nothing where it can."""
    if __version__ != version:
        return f"has version {__version__} of this program, and the command's has {version}; install the same on both"
    if not sign.exists():
        text = "does not see the run's folder, where the record is written"
        return f"{text}; name another one, or keep runs on a shared path"
    return ""
