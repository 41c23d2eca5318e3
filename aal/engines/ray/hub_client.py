"""How other processes call the hub's actor: within bounds, and with its clock."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, GetTimeoutError, RayError, RayTaskError

from aal.coordination.clock import WallClock
from aal.engines.heartbeats import AwakeClock
from aal.engines.ray.hub_host import Reply
from aal.engines.ray.run_files import RunFiles

WINDOW_S = 120.0  # in which the quickest reply sets the clock
SLICE_S = 0.2
POLLS_PER_S = 400  # of the thousand calls a second that an actor takes
NEVER_RAN = "The actor never ran"
OF_MACHINE = ("node has died", "node was terminated", "NODE_DIED")  # in what Ray says of an actor
AFTER_SIGNAL_S = (5.0, 1.0)  # how long a call may still take after the first signal, and after a second one


class HubTime:
    """The run's time on another machine, set by every reply of the hub.

    A reply says what time it was when the hub sent it, so the time here is never ahead of the hub's, and behind it by
    no more than the quickest reply of the last minutes took.
    """

    def __init__(self) -> None:
        self._best = self._former = float("-inf")
        self._since = time.monotonic()
        self._last = 0.0

    def note(self, hub_s: float) -> None:
        """Notes the run's time of a reply that has just come."""
        now = time.monotonic()
        if now - self._since > WINDOW_S:
            self._former, self._best, self._since = self._best, float("-inf"), now
        self._best = max(self._best, hub_s - now)

    def now(self) -> float:
        """Returns the seconds since the run began; never runs backwards."""
        self._last = max(self._last, time.monotonic() + max(self._best, self._former))
        return self._last


class HubClock(WallClock):
    """The hub's time, for roles on any machine; who waits asks the hub more rarely than on one machine.

    Args:
        time: of the hub.
        heartbeat: called at every poll.
        roles: how many servers and workers wait so; together they poll no more than `POLLS_PER_S`.
    """

    FIRST_PAUSE_S = 0.005

    def __init__(self, time: HubTime, heartbeat: Callable[[], None], roles: int = 1) -> None:
        super().__init__(0.0, heartbeat)
        self._time = time
        self.LONGEST_PAUSE_S = max(0.5, roles / POLLS_PER_S)

    def now(self) -> float:
        """Returns the seconds since the run began."""
        return self._time.now()


class HubClient:
    """The part of the hub that a role sees; its calls are those of the part, with heartbeats and failures.

    Args:
        host: actor of the hub.
        slot: name of the place of this process.
        incarnation: which of the processes that fill it.
        limit_s: how long a call may take.
        time: is set by every reply.
    """

    def __init__(self, host: Any, slot: str, incarnation: int, limit_s: float, time: HubTime) -> None:
        self._host = host
        self._slot, self._incarnation = slot, incarnation
        self._limit_s = limit_s
        self._time = time
        self.files: RunFiles | None = None  # that messages name, where this machine does not see the run's folder

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._call, name)

    def _call(self, name: str, *args: Any) -> Any:
        """Makes a call; the files that it names are in place before, on either side.

        Raises:
            ConnectionError: the hub, or what serves its files, is gone.
        """
        try:
            if self.files is not None:
                self.files.send(args)
            reply: Reply = ray.get(
                self._host.call.remote(self._slot, self._incarnation, name, args), timeout=self._limit_s
            )
            hub_s, result, error = reply
            self._time.note(hub_s)
            if error is not None:
                raise error
            if self.files is not None:
                self.files.announced(args)
                self.files.bring(result)
            return result
        except RayTaskError:  # an error of what was called, which so is there
            raise
        except RayError as lost:
            raise ConnectionError(f"the hub is gone: {type(lost).__name__}") from None


def is_of_machine(error: RayError) -> bool:
    """Whether an actor is lost because its machine is, or does not answer."""
    kinds = ActorUnavailableError | ActorUnschedulableError
    return isinstance(error, kinds) or any(words in str(error) for words in OF_MACHINE)


def why_lost(error: RayError) -> str:
    """Returns what an error says of an actor."""
    if isinstance(error, ActorUnavailableError):
        return "its machine does not answer"
    if is_of_machine(error):
        return "its machine was lost"
    if NEVER_RAN in str(error):  # as where a cluster without a token is joined with one
        return "was cancelled before it began; RAY_AUTH_MODE must be here what it was when the cluster started"
    if "creation task" in str(error):  # such as a package that is not on that machine
        return f"could not start: {str(error).strip().splitlines()[-1].strip()}"
    if isinstance(error, RayTaskError):  # an error of what was called
        return f"failed: {str(error).strip().splitlines()[-1].strip()}"
    return "its process was killed"


class RemoteHub:
    """The hub's actor as the main process calls it; implements `Monitor` of `aal.coordination.interfaces`.

    Args:
        host: actor of the hub.
        limit_s: how long a call may take.
        caught: names of the signals that came: after one, no call takes longer than some seconds.
        check: called while a call takes long; raises `RunFailed` where waiting on is in vain.

    Attributes:
        loss: why the hub is gone; empty while it is not.
    """

    def __init__(
        self, host: Any, limit_s: float, caught: Sequence[str], check: Callable[[], None] = lambda: None
    ) -> None:
        self.host = host
        self._limit_s = limit_s
        self._caught = caught
        self._check = check
        self.loss = ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: self.asked(self.host.monitor.remote(name, args))

    def asked(self, reference: Any, limit_s: float | None = None) -> Any:
        """Returns what a call gives; an actor that does not answer in time is killed.

        Raises:
            ConnectionError: the hub is gone.
        """
        clock, limit_s = AwakeClock(), limit_s or self._limit_s
        while True:
            try:
                _, result, error = ray.get(reference, timeout=SLICE_S)
                break
            except GetTimeoutError:
                self._check()
                patience = min(AFTER_SIGNAL_S[: len(self._caught)], default=limit_s)
                if (passed := clock.now()) > min(limit_s, patience):
                    self._lose(f"did not answer for {passed:.0f} s")
            except RayError as lost:
                self._lose(why_lost(lost))
        if error is not None:
            raise error
        return result

    def _lose(self, why: str) -> None:
        self.loss = self.loss or f"hub: {why}"
        ray.kill(self.host)
        raise ConnectionError(self.loss)
