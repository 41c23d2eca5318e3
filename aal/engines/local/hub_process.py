"""The process of the hub, which every role calls through a proxy that shows its part of the hub alone."""

import functools
import types
from collections.abc import Sequence
from multiprocessing.managers import BaseManager
from multiprocessing.process import BaseProcess

from aal.coordination.interfaces import Monitor
from aal.coordination.monitor import HubMonitor
from aal.coordination.parts import PARTS, methods_of
from aal.engines.base import Plan
from aal.engines.hosting import HEART, HostedHub


class HubManager(BaseManager):
    """The process that hosts the hub, on a unix socket in a private folder, with a random key."""

    @property
    def process(self) -> BaseProcess | None:
        """That was started; None before."""
        return getattr(self, "_process", None)


class _Hosted:
    """The hub of this process, once it is open."""

    hub: HostedHub


def _open(plan: Plan, origin: float) -> HubMonitor:
    _Hosted.hub = HostedHub(plan, origin)
    return _Hosted.hub.monitor


def _part(part: str, slot: str, incarnation: int, members: Sequence[int] = ()) -> types.SimpleNamespace:
    """Returns the part of the hub that a role sees, for one process alone."""
    return types.SimpleNamespace(**_Hosted.hub.part(part, slot, incarnation, members))


HubManager.register("open", _open, exposed=methods_of(Monitor))
for _name, _interface in PARTS.items():
    HubManager.register(_name, functools.partial(_part, _name), exposed=[*methods_of(_interface), *HEART])
