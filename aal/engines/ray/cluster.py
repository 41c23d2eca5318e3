"""The Ray cluster of a run: one that this program starts here, or one that it joins."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aal.config.errors import Refused, RunFailed
from aal.config.ray import RaySettings
from aal.engines.base import Display

OBJECTS = 256 * 2**20  # bytes of the object store of a cluster that is started here, where files are mapped
ANSWER_S = 5.0  # for a head to answer
HEAD_S = 20.0  # without an answer, after which the head counts as lost
LOOK_S = 1.0
AUTH = "RAY_AUTH_MODE"

log = logging.getLogger("aal")


class Cluster:
    """The machines of a cluster.

    Args:
        joined: whether it was there before this program.
    """

    def __init__(self, joined: bool) -> None:
        self.joined = joined
        self.here: str = ray.get_runtime_context().get_node_id()
        self.is_lost = False  # then nothing more may be asked of Ray
        self._head = ray.get_runtime_context().gcs_address
        self._checked_at = self._answered_at = time.monotonic()

    def machines(self) -> dict[str, dict[str, float]]:
        """Returns the resources of each machine that is there, by its id.

        Raises:
            RunFailed: the head is gone.
        """
        self.wait_for_head()
        return {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}

    def free(self) -> dict[str, dict[str, float]]:
        """Returns what nobody on the cluster has of each machine, as Ray knew it a moment ago, by its id."""
        return {name: dict(left) for name, left in available_resources_per_node().items()}

    def on_this_machine(self) -> NodeAffinitySchedulingStrategy:
        """Returns what keeps an actor on the machine of this program."""
        return NodeAffinitySchedulingStrategy(self.here, soft=False)

    def on_machine(self, machine: str) -> NodeAffinitySchedulingStrategy:
        """Returns what brings an actor to a machine, as long as that one is there."""
        return NodeAffinitySchedulingStrategy(machine, soft=True)

    def on_each_machine(self) -> list[NodeAffinitySchedulingStrategy]:
        """Returns what brings a task to each machine that is there."""
        return [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]

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
            time.sleep(min(LOOK_S, deadline - time.monotonic()))

    def check(self) -> None:
        """Looks, now and then, whether the head answers: without it Ray ends this program a minute later.

        Raises:
            RunFailed: it does not.
        """
        now = time.monotonic()
        if not self.joined or now - self._checked_at < ANSWER_S:
            return
        self._checked_at = now
        if answers(self._head):
            self._answered_at = now
        elif now - self._answered_at > HEAD_S:
            self._lose()

    def wait_for_head(self) -> None:
        """Waits until the head answers, without which many calls of Ray do not return, and nothing can be started.

        Raises:
            RunFailed: it does not.
        """
        deadline = time.monotonic() + HEAD_S
        while self.joined and not answers(self._head):
            if time.monotonic() > deadline:
                self._lose()
            time.sleep(LOOK_S)

    def _lose(self) -> None:
        self.is_lost = True
        raise RunFailed(f"the head of the Ray cluster at {self._head} is gone")


def in_words(machines: Sequence[Mapping[str, float]]) -> str:
    """Returns how many machines there are, and what they have."""
    names = sorted({name for one in machines for name in one if not name.startswith(("node:", "memory", "object"))})
    total = ", ".join(f"{sum(one.get(name, 0.0) for one in machines):g} {name}" for name in names)
    there_are = "there is 1 machine" if len(machines) == 1 else f"there are {len(machines)} machines"
    return f"{there_are} with {total or 'nothing'}"


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def connected(settings: RaySettings) -> Iterator[Cluster]:
    """Starts a cluster on this machine or joins one, and leaves it again; one that the caller has joined stays.

    Raises:
        Refused: no cluster answers at the address, or it does not take this program.
    """
    if ray.is_initialized():
        yield Cluster(joined=True)
        return
    address = settings.address
    if address not in (None, "auto") and not answers(str(address)):
        raise Refused(f"ray.address: {address}: nothing answers there; give the host:port that `ray start` printed")
    _keep_off_the_terminal()
    more: dict[str, Any] = {} if address else {"object_store_memory": OBJECTS, "include_dashboard": False}
    if not address:
        os.environ.setdefault(
            "RAY_USAGE_STATS_ENABLED", "0"
        )  # a cluster started here reports to nobody, unless asked to
    try:
        with _without_its_handler():
            ray.init(
                address or "local", log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **more
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise Refused("ray.address: auto: no Ray cluster runs on this machine; `ray start` joins one") from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = f"ray.address: {address}" if address else "engine: ray: cannot be started here"
        may_want_token = "Failed to connect" in lines[0] and AUTH not in os.environ
        hint = f"; if the cluster asks for a token, set {AUTH}=token" if may_want_token else ""
        raise Refused(f"{what}: {lines[0]}{hint}") from None
    try:
        yield Cluster(joined=address is not None)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _without_its_handler() -> Iterator[None]:
    """Keeps Ray from handling SIGTERM itself, which would end this program without its report."""
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


def _keep_off_the_terminal() -> None:
    """Has what Ray's machines report go to the log, and not to standard output."""
    from ray._private import worker

    for name in ("ray", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_lines


def _log_lines(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data.get("lines", ()):
        log.info("ray: %s", line)


def ended(references: Sequence[Any], seconds: float) -> set[Any]:
    """Waits until all of some calls have ended, at most for so long; returns those that have."""
    return set(ray.wait(list(references), num_returns=len(references), timeout=seconds)[0]) if references else set()
