"""The hub of a run in the process that hosts it: each process of a role gets a part of it that only it may call."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from aal.coordination.clock import WallClock
from aal.coordination.fence import Fence
from aal.coordination.interfaces import Heart
from aal.coordination.monitor import HubMonitor
from aal.coordination.parts import methods_of, part_of
from aal.engines.base import Plan, open_hub

SWITCH_S = 0.0005  # how long one caller may keep the others waiting; Python's own 0.005 makes draws slow
HEART = methods_of(Heart)


class HostedHub:
    """A hub with its record, its monitor and its fence.

    Args:
        plan: of the run.
        origin: of the run's clock, of this machine.

    Raises:
        RecordFailed: the record cannot be written.
    """

    def __init__(self, plan: Plan, origin: float) -> None:
        sys.setswitchinterval(SWITCH_S)
        self.clock = WallClock(origin)
        self._hub = open_hub(plan, self.clock)
        self.monitor = HubMonitor(self._hub)
        self._fence = Fence()

    def part(self, part: str, slot: str, incarnation: int, members: Sequence[int]) -> dict[str, Callable[..., Any]]:
        """Returns the calls of a role's part of the hub for one process alone: the former one of its slot is shut out.

        Args:
            part: one of `aal.coordination.parts.PARTS`.
            slot: name of the place of the process.
            incarnation: which of the processes that fill it.
            members: numbers of the roles in the process.
        """
        self._fence.admit(slot, incarnation)
        calls = vars(part_of(self._hub, part, members))
        calls |= {name: getattr(self.monitor, name) for name in HEART}
        return {name: self._fence.guarded(slot, incarnation, call) for name, call in calls.items()}
