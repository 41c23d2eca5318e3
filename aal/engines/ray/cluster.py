"""The machines of a Ray cluster, and whether its head and Ray on this machine are there."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aal.config.errors import Refused, RunFailed
from aal.engines.base import Display

ANSWER_S = 5.0  # for a head to answer
HEAD_S = 20.0  # without an answer, after which the head counts as lost
LOOK_S = 1.0
WATCH_S = 2.0
ENDED_HERE = "Ray has ended on this machine"

Found = Mapping[str, Mapping[str, float]]  # of each machine, by its id: of each resource so much


class Cluster:
    """The machines of a cluster.

    Args:
        joined: whether it was there before this program.
    """

    def __init__(self, joined: bool) -> None:
        self.joined = joined
        self.here: str = ray.get_runtime_context().get_node_id()
        self.is_lost = False  # its head, or Ray on this machine
        self._head = ray.get_runtime_context().gcs_address
        self._without_head = f"the head of the Ray cluster at {self._head} is gone"
        own = next(node for node in ray.nodes() if node["NodeID"] == self.here)
        self._raylet = f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}"
        self._checked_at = self._answered_at = time.monotonic()

    def machines(self) -> dict[str, dict[str, float]]:
        """Returns the resources of each machine that is there, by its id.

        Raises:
            RunFailed: the head, or Ray on this machine, is gone.
        """
        self.wait_for_head()
        return _alive()

    def resources(self) -> tuple[Found, Found]:
        """Returns the resources of each machine that is there, by its id, and what nobody had of them a moment ago."""
        return _alive(), available_resources_per_node()

    def on_this_machine(self) -> NodeAffinitySchedulingStrategy:
        """Returns what keeps an actor on the machine of this program."""
        return self.on_machine(self.here)

    @staticmethod
    def on_machine(machine: str) -> NodeAffinitySchedulingStrategy:
        """Returns what keeps an actor or a task to a machine; it fails where that one is gone."""
        return NodeAffinitySchedulingStrategy(machine, soft=False)

    def on_each_machine(self) -> list[NodeAffinitySchedulingStrategy]:
        """Returns what brings a task to each machine that is there."""
        return [self.on_machine(name) for name in _alive()]

    def wait_for(
        self,
        lacks: Callable[[Sequence[Mapping[str, float]]], list[str]],
        wait_s: float,
        display: Display,
        caught: Sequence[str],
    ) -> None:
        """Waits until what a start needs fits.

        Args:
            lacks: what such machines lack, a line each.
            wait_s: how long at the most.
            display: where it is shown what is missing.
            caught: names of the signals that came; one ends the wait.

        Raises:
            Refused: they do not fit; what is missing is named.
        """
        deadline, shown = time.monotonic() + (wait_s if self.joined else 0.0), False
        while problems := lacks(machines := list(self.machines().values())):
            if caught:
                return
            if time.monotonic() >= deadline:
                raise Refused(*(f"ray: {one}; {in_words(machines)}" for one in problems))
            if not shown:
                display.note(f"waits for machines: {'; '.join(problems)}; {in_words(machines)}")
                shown = True
            time.sleep(max(0.0, min(LOOK_S, deadline - time.monotonic())))

    def check(self) -> None:
        """Looks, now and then, whether the head answers: without it Ray ends this program a minute later.

        Raises:
            RunFailed: it does not, or Ray has ended on this machine.
        """
        now = time.monotonic()
        if now - self._checked_at < ANSWER_S:
            return
        self._checked_at = now
        self._check_here()
        if answers(self._head):
            self._answered_at = now
        elif now - self._answered_at > HEAD_S:
            self._lose(self._without_head)

    def wait_for_head(self) -> None:
        """Waits until the head answers, without which many calls of Ray do not return, and nothing can be started.

        Raises:
            RunFailed: it does not, or Ray has ended on this machine.
        """
        deadline = time.monotonic() + HEAD_S
        self._check_here()
        while not answers(self._head):
            if time.monotonic() > deadline:
                self._lose(self._without_head)
            time.sleep(LOOK_S)
            self._check_here()

    def settle(self) -> None:
        """Waits a moment after a loss: `ray stop` ends the actors of this machine just before Ray itself.

        Raises:
            RunFailed: Ray has ended on this machine, or ends, or the head is gone.
        """
        time.sleep(LOOK_S)
        self.wait_for_head()
        if self.here not in _alive():
            self._lose(ENDED_HERE)

    def is_here(self) -> bool:
        """Whether Ray runs on this machine; a call that needs it would otherwise end this program at once."""
        return not is_refused(self._raylet)

    def may_be_asked(self) -> bool:
        """Whether all calls of Ray return: its head, and Ray on this machine, are there."""
        self.is_lost = self.is_lost or not (self.is_here() and answers(self._head))
        return not self.is_lost

    def _check_here(self) -> None:
        if not self.is_here():
            self._lose(ENDED_HERE)

    def _lose(self, what: str) -> NoReturn:
        self.is_lost = True
        raise RunFailed(what)


class Watch:
    """Looks, in a thread of its own, which machines there are: a head that hangs never answers.

    Args:
        cluster: to look at; one that was started for this program has no other machine.

    Attributes:
        found: resources of each machine, by its id, and what nobody has of them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.found: tuple[Found, Found] = {}, {}
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="machines", daemon=True)
        if cluster.joined:
            self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(WATCH_S):
            with contextlib.suppress(Exception):  # of a head that is gone, which is noticed elsewhere
                self.found = self._cluster.resources()

    def end(self) -> None:
        """Ends the thread, if it is not stuck."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_S)


def _alive() -> dict[str, dict[str, float]]:
    return {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def in_words(machines: Sequence[Mapping[str, float]]) -> str:
    """Returns how many machines there are, and what they have."""
    names = sorted({name for one in machines for name in one if not name.startswith(("node:", "memory", "object"))})
    total = ", ".join(f"{sum(one.get(name, 0.0) for one in machines):g} {name}" for name in names)
    there_are = "there is 1 machine" if len(machines) == 1 else f"there are {len(machines)} machines"
    return f"{there_are} with {total or 'nothing'}"


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    try:
        _connect(address)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def is_refused(address: str) -> bool:
    """Whether the machine of `host:port` answers that nothing listens there."""
    try:
        _connect(address)
    except ConnectionRefusedError:
        return True
    except OSError:  # such as an address that this machine lacks for a moment
        return False
    return False


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def ended(references: Sequence[Any], seconds: float) -> set[Any]:
    """Waits until all of some calls have ended, at most for so long; returns those that have."""
    return set(ray.wait(list(references), num_returns=len(references), timeout=seconds)[0]) if references else set()
