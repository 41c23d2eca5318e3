"""One process of a role as an actor: what it reads is brought to its machine, what it logs goes to the run's log."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from aal.engines.ray.identity import Identity
from aal.engines.ray.node_store import SHARED, NodeStore, remove_run, store_folder
from aal.engines.ray.run_files import RunFiles

HEARTBEAT_S = 2.0  # at the least

log = logging.getLogger("aal")


@dataclass(frozen=True)
class Assignment:
    """All that a process needs to fill a slot.

    Attributes:
        slot: to fill; paths among the arguments of its role are of the main process's machine.
        rows: (n,) that its roles read of the `.npy` files among these; None for all.
        incarnation: which of the processes that fill it.
        run: the run's folder, there.
        run_id: stands for the run on other machines.
        settings: of the run.
        hub: its actor.
        files: actor of the `Files` of that machine.
        sign: a file in the run's folder, by which a machine knows that it sees the folder.
        seen: what roles read, as the main process's machine sees it.
        shared: whether to take files for the same; None to look.
        threads: to compute with.
        version: of this program.
    """

    slot: Slot
    rows: np.ndarray | None
    incarnation: int
    run: pathlib.Path
    run_id: str
    settings: Settings
    hub: Any
    files: Any
    sign: pathlib.Path
    seen: dict[pathlib.Path, Identity]
    shared: bool | None
    threads: int
    version: str

    @property
    def name(self) -> str:
        """Different from that of any other process of the run."""
        return f"{self.slot.name}-{self.incarnation}"

    def sees(self, path: pathlib.Path) -> bool:
        """Whether this machine sees what a role reads at a path of the main process's machine."""
        return self.seen[path].is_seen() if self.shared is None else self.shared

    @property
    def works_in_run(self) -> bool:
        """Whether the process works in the run's folder; the page, which is on its machine, always does."""
        is_seen = self.sign.exists() if self.shared is None else self.shared
        return is_seen or self.slot.role.name == "web" or self.settings.compute == "none"


class RoleHost:
    """Hosts a process of a role."""

    def begun(self) -> str:
        """Returns the name of the machine, when there is one for this actor."""
        return socket.gethostname()

    def run(self, assignment: Assignment) -> int:
        """Runs the roles of a slot until the run is over; returns the exit code, as of a process."""
        for kind in (signal.SIGINT, signal.SIGHUP):
            signal.signal(kind, signal.SIG_IGN)  # the main process ends this one
        one, hub_time = assignment, HubTime()
        limit_s = one.settings.hung_after_s
        hub = HubClient(one.hub, one.slot.name, one.incarnation, limit_s, hub_time)
        _log_to(one)
        workplace = _Workplace(one, hub)
        try:
            return exit_code_of(one.slot.name, hub, lambda: self._work(one, hub, hub_time, workplace))
        finally:
            workplace.remove()

    def _work(self, one: Assignment, hub: HubClient, hub_time: HubTime, workplace: "_Workplace") -> None:
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

            run_roles(slot, one.incarnation, run, settings, hub, clock, beat, every_s)


class _Workplace:
    """What a process has on its machine: the run's folder or one of its own, and the images."""

    def __init__(self, assignment: Assignment, hub: HubClient) -> None:
        self._one = assignment
        self._hub = hub
        self._folder = store_folder() / "runs" / assignment.run_id / assignment.name

    def prepare(self, heartbeat: Callable[[], None]) -> tuple[pathlib.Path, Any]:
        """Makes sure that all is there; returns the run's folder, and the role with the paths of this machine."""
        one = self._one
        store = NodeStore(store_folder(), one.run_id, one.files, heartbeat) if one.shared is not True else None
        role, run = one.slot.role, one.run
        if store is not None:
            args = tuple(self._here(arg, store) if isinstance(arg, pathlib.Path) else arg for arg in role.args)
            role = dataclasses.replace(role, args=args)
            if not one.works_in_run:
                self._hub.files = RunFiles(self._folder, run, store, one.name)
                run = self._folder
        return run, role

    def _here(self, path: pathlib.Path, store: NodeStore) -> pathlib.Path:
        """Returns the path on this machine of what is at a path of the main process's."""
        if self._one.sees(path):
            return path
        listed: Sequence[pathlib.Path] = ray.get(self._one.files.listed.remote(path))
        is_file = list(listed) == [path]
        folder = self._folder / "images" / (path.parent.name if is_file else path.name)
        for one in listed:
            if not (folder / one.name).exists():
                rows = self._one.rows if is_file and one.suffix == ".npy" else None
                store.image_file(one, folder / one.name, rows)
        return folder / path.name if is_file else folder

    def remove(self) -> None:
        """Removes the folder of this process; the last one of the run on this machine removes what they shared."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            if {path.name for path in self._folder.parent.iterdir()} <= {SHARED}:
                remove_from_machine(self._one.run_id)


def remove_from_machine(run_id: str) -> None:
    """Removes what the processes of a run have left on the machine where this is called."""
    remove_run(store_folder(), run_id)


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
