"""What all processes of roles share, on whatever machine they run: their slots, how they work, and how they end."""

import asyncio
import contextlib
import logging
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.config.errors import RunFailed, Stopped, Superseded, UserError
from aal.config.settings import Settings
from aal.context import Context, at_most_every
from aal.coordination.clock import WallClock
from aal.engines.base import Role

HUB_GONE = (EOFError, BrokenPipeError, ConnectionError)  # what a call of a hub raises that is gone

# Exit codes of a role's process.
USER_ERROR = 2  # only the user can mend it
WITHOUT_HUB = 3  # the hub is gone
PERMANENT = 4  # it would fail again
MOVED = 256  # it ended for another process to begin elsewhere; no process ends with such a code by itself
WITH_ALL = 255  # it ended with what all processes come from; multiprocessing says so of a fork server
CODES: dict[type[BaseException], int] = {UserError: USER_ERROR, RunFailed: PERMANENT}

log = logging.getLogger("aal")


class HubLost(Exception):  # noqa: N818 - a state of the run, which may go on
    """The hub, or what all processes come from, is gone; what the hub knew is in `run.db`."""


@dataclass(frozen=True, eq=False)
class Slot:
    """One process of a role; whichever process fills it, the name stays."""

    role: Role
    index: int

    @property
    def name(self) -> str:
        """As in the log and in heartbeats."""
        return self.role.process_name(self.index)


def exit_code_of(name: str, hub: Any, act: Callable[[], None]) -> int:
    """Does the work of a role's process; returns its exit code, and reports to the hub and the log why it failed.

    Args:
        name: of the slot.
        hub: takes failures.
        act: the work, until the run is over.
    """
    try:
        act()
    except Stopped:
        pass
    except Superseded as error:
        log.warning("%s; it ends", error)
    except HUB_GONE:
        log.error("the hub is gone")
        return WITHOUT_HUB
    except (Exception, SystemExit) as error:  # a user's code may end the process, for which the run would wait
        log.exception("failed")
        is_known = isinstance(error, UserError | RunFailed)
        with contextlib.suppress(*HUB_GONE, Superseded):
            hub.report_failure(name, str(error) if is_known else f"{type(error).__name__}: {error}")
        return CODES.get(type(error), 1)
    return 0


def run_roles(
    slot: Slot,
    incarnation: int,
    run: pathlib.Path,
    settings: Settings,
    hub: Any,
    clock: Callable[[Callable[[], None]], WallClock],
    beat: Callable[[], None],
    every_s: float,
    arriving: Mapping[pathlib.Path, Callable[[np.ndarray], None]] | None = None,
) -> None:
    """Runs the roles of a slot side by side, until the run is over.

    Args:
        slot: of the process.
        incarnation: which of the processes that fill the slot it is.
        run: the run directory.
        settings: of the run.
        hub: the part of the hub that the role sees.
        clock: makes the run's clock, given what it is to call at every poll.
        beat: gives a heartbeat.
        every_s: how often it is to be given at the most.
        arriving: see `Context`.
    """

    async def members() -> None:
        heartbeat = at_most_every(every_s, beat)
        heartbeat()
        time = clock(heartbeat)
        number, images = slot.role.number, arriving or {}
        roles = (
            slot.role.run(Context(slot.name, index, run, settings, hub, time, heartbeat, incarnation, number, images))
            for index in slot.role.members(slot.index)
        )
        await asyncio.gather(*roles)

    asyncio.run(members())
