"""One process of a role as an actor: what it reads is brought to its machine, what it logs goes to the run's log."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import ray

from aal import __version__
from aal.config.cores import core_count
from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.config.terminal import LineFormatter
from aal.context import at_most_every
from aal.coordination.schedules import schedule_of
from aal.engines.processes import Slot, exit_code_of, run_roles
from aal.engines.ray.hub_client import POLLS_PER_S, HubClient, HubClock, HubTime
from aal.engines.ray.workplace import Assignment, Workplace

HEARTBEAT_S = 2.0  # at the least

log = logging.getLogger("aal")


class RoleHost:
    """Hosts a process of a role."""

    def begun(self) -> str:
        """Returns Ray's id of the machine, when there is one for this actor."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def run(self, assignment: Assignment) -> int:
        """Runs the roles of a slot until the run is over; returns the exit code, as of a process."""
        for kind in (signal.SIGINT, signal.SIGHUP):
            signal.signal(kind, signal.SIG_IGN)  # the main process ends this one
        one, hub_time = assignment, HubTime()
        limit_s = one.settings.hung_after_s
        hub = HubClient(one.hub, one.slot.name, one.incarnation, limit_s, hub_time)
        _log_to(one)
        workplace = Workplace(one, hub)
        try:
            return exit_code_of(one.slot.name, hub, lambda: self._work(one, hub, hub_time, workplace))
        finally:
            workplace.remove()

    def _work(self, one: Assignment, hub: HubClient, hub_time: HubTime, workplace: Workplace) -> None:
        log.info("started")
        if __version__ != one.version:
            text = f"has version {__version__} of this program, and the command's has {one.version}"
            raise UserError(f"{socket.gethostname()}: {text}; install the same on every machine")
        roles = one.settings.server_num + one.settings.worker_num
        every_s = min(max(HEARTBEAT_S, roles / POLLS_PER_S), one.settings.hung_after_s / 4)
        one.slot.role.load()  # before the first heartbeat, after which it must give more
        with _stack_logged(one.settings.hung_after_s) as note:

            def beat() -> None:
                note()
                hub.heartbeat(one.slot.name)

            run, role = workplace.prepare(at_most_every(every_s, beat))
            settings = _set_up(one)
            slot = Slot(role, one.slot.index)

            def clock(act: Callable[[], None]) -> HubClock:
                return HubClock(hub_time, act, roles)

            run_roles(slot, one.incarnation, run, settings, hub, clock, beat, every_s, workplace.arriving)


class _ToHub(logging.Handler):
    """Sends lines of the log to the hub, which writes them into the run's log."""

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self._hub = hub

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written is no reason to fail
            self._hub.write_log.remote(self.format(record))


def _log_to(one: Assignment) -> None:
    handler = _ToHub(one.hub)
    handler.setFormatter(LineFormatter(f"%(asctime)s {one.slot.name} {os.getpid()} %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.handlers = [handler]


@contextlib.contextmanager
def _stack_logged(hung_after_s: float) -> Any:
    """Writes the stack of this thread into the log shortly before the process counts as hung.

    Gives a function to be called at each heartbeat.
    """
    ended, last, thread = threading.Event(), [time.monotonic()], threading.get_ident()

    def watch() -> None:
        while not ended.wait(hung_after_s / 10):
            if time.monotonic() - last[0] > 0.8 * hung_after_s:
                stack = "".join(traceback.format_stack(sys._current_frames()[thread]))
                log.error("no heartbeat for %.0f s; it is at\n%s", time.monotonic() - last[0], stack)
                return

    threading.Thread(target=watch, name="stack", daemon=True).start()
    try:
        yield lambda: last.__setitem__(0, time.monotonic())
    finally:
        ended.set()


def _set_up(one: Assignment) -> Settings:
    """Sets up PyTorch; returns the settings with the devices that Ray has given to this actor."""
    settings, role = one.settings, one.slot.role
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # without any, Ray leaves all of them to be seen (ray#62492)
    if role.name in ("annotators", "web") or settings.compute == "none":
        return settings
    from aal.training.process import set_up_local  # loads PyTorch, which only these processes need

    names = {"servers": ["cuda:0" if gpus else "cpu"], "workers": ["cuda:0" if gpus else "cpu"]}
    threads = {f"{'worker' if role.name == 'worker' else 'server'}_threads": min(one.threads, core_count())}
    given = {key: value for key, value in threads.items() if getattr(settings.devices, key) is None}
    settings = settings.model_copy(update={"devices": settings.devices.model_copy(update=names | given)})
    takes_turns = schedule_of(settings).takes_turns
    set_up_local("worker" if role.name == "worker" else "server", settings, takes_turns)
    return settings
