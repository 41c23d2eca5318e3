"""The process of the hub, which every role calls through a proxy that shows its part of the hub alone."""

import functools
import inspect
import sys
import types
from multiprocessing.managers import BaseManager

from aal.coordination.clock import WallClock
from aal.coordination.hub import Hub
from aal.coordination.interfaces import AnnotatorHub, Heart, Monitor, ServerHub, WorkerHub
from aal.coordination.monitor import HubMonitor
from aal.engines.base import Plan, open_hub

SWITCH_S = 0.0005  # how long one caller may keep the others waiting; Python's own 0.005 makes draws slow


class HubManager(BaseManager):
    """The process that hosts the hub, on a unix socket in a private folder, with a random key."""


class _Hosted:
    """The hub of this process, once it is open."""

    hub: Hub
    monitor: HubMonitor


def _open(plan: Plan, origin: float) -> HubMonitor:
    sys.setswitchinterval(SWITCH_S)
    clock = WallClock(origin)
    _Hosted.hub = open_hub(plan, clock)
    _Hosted.monitor = HubMonitor(_Hosted.hub, clock)
    return _Hosted.monitor


def _methods(interface: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(interface, inspect.isfunction) if not name.startswith("_")]


def _part(whole: str, methods: list[str]) -> types.SimpleNamespace:
    """Returns the part of the hub, or of its monitor, that a role sees."""
    return types.SimpleNamespace(**{name: getattr(getattr(_Hosted, whole), name) for name in methods})


HubManager.register("open", _open, exposed=_methods(Monitor))
for _role, _interface in {"server": ServerHub, "worker": WorkerHub, "annotators": AnnotatorHub}.items():
    HubManager.register(_role, functools.partial(_part, "hub", _methods(_interface)), exposed=_methods(_interface))
HubManager.register("heart", functools.partial(_part, "monitor", _methods(Heart)), exposed=_methods(Heart))
