"""The process of the hub, which every role calls through a proxy that shows its part of the hub alone."""

import functools
import sys
import types
from collections.abc import Sequence
from multiprocessing.managers import BaseManager
from multiprocessing.process import BaseProcess

from aal.coordination.clock import WallClock
from aal.coordination.fence import Fence
from aal.coordination.hub import Hub
from aal.coordination.interfaces import Heart, Monitor
from aal.coordination.monitor import HubMonitor
from aal.coordination.parts import PARTS, methods_of, part_of
from aal.engines.base import Plan, open_hub

SWITCH_S = 0.0005  # how long one caller may keep the others waiting; Python's own 0.005 makes draws slow


class HubManager(BaseManager):
    """The process that hosts the hub, on a unix socket in a private folder, with a random key."""

    @property
    def process(self) -> BaseProcess | None:
        """That was started; None before."""
        return getattr(self, "_process", None)


class _Hosted:
    """The hub of this process, once it is open."""

    hub: Hub
    monitor: HubMonitor
    fence: Fence


def _open(plan: Plan, origin: float) -> HubMonitor:
    sys.setswitchinterval(SWITCH_S)
    clock = WallClock(origin)
    _Hosted.hub = open_hub(plan, clock)
    _Hosted.monitor, _Hosted.fence = HubMonitor(_Hosted.hub), Fence()
    return _Hosted.monitor


def _part(part: str, slot: str, incarnation: int, members: Sequence[int] = ()) -> types.SimpleNamespace:
    """Returns the part of the hub that a role sees, for one process alone: the former one of its slot is shut out."""
    hosted, fence = _Hosted, _Hosted.fence
    fence.admit(slot, incarnation)
    calls = vars(part_of(hosted.hub, part, members))
    calls |= {name: getattr(hosted.monitor, name) for name in HEART}
    return types.SimpleNamespace(**{name: fence.guarded(slot, incarnation, call) for name, call in calls.items()})


HEART = methods_of(Heart)
HubManager.register("open", _open, exposed=methods_of(Monitor))
for _name, _interface in PARTS.items():
    HubManager.register(_name, functools.partial(_part, _name), exposed=[*methods_of(_interface), *HEART])
