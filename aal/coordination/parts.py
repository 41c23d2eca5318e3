"""The part of the hub that each role sees, and which calls of it a process may make."""

import functools
import inspect
import types
from collections.abc import Callable, Collection
from typing import Any

from aal.coordination.federated_interfaces import AggregatorHub, ClientHub, EvaluatorHub, owner_of
from aal.coordination.interfaces import AnnotatorHub, PeopleHub, ServerHub, WorkerHub

PARTS: dict[str, type] = {
    **{"server": ServerHub, "worker": WorkerHub, "annotators": AnnotatorHub, "web": PeopleHub},
    **{"client": ClientHub, "aggregator": AggregatorHub, "evaluator": EvaluatorHub},
}

WORK = {"job", "grant", "task", "evaluation"}  # the calls by which a role that computes asks what to do next


def methods_of(interface: type) -> list[str]:
    """Returns the names of the calls of an interface."""
    return [name for name, _ in inspect.getmembers(interface, inspect.isfunction) if not name.startswith("_")]


def asks_for_work(part: str) -> bool:
    """Whether the role of a part asks what to do next, so that its process can end in between."""
    return not WORK.isdisjoint(methods_of(PARTS[part]))


def part_of(hub: object, part: str, members: Collection[int]) -> types.SimpleNamespace:
    """Returns the calls of a hub that a process may make.

    Args:
        hub: of the run.
        part: one of `PARTS`.
        members: numbers of the roles in the process; clients may ask for what is theirs alone.
    """
    calls = {name: getattr(hub, name) for name in methods_of(PARTS[part])}
    if part == "client":
        calls = {name: _own(call, members) for name, call in calls.items()}
    return types.SimpleNamespace(**calls)


def _own(call: Callable[..., Any], members: Collection[int]) -> Callable[..., Any]:
    """Returns a call that refuses what is another client's."""

    @functools.wraps(call)
    def own(*args: Any) -> Any:
        if owner_of(args) not in members:
            raise ValueError(f"{call.__name__}: client {owner_of(args)} is not in this process")
        return call(*args)

    return own
