"""The roles as actors of a Ray cluster, the hub one of them; see docs/ray.md."""

import contextlib
import functools
import logging
import os
import pathlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from aal import __version__
from aal.coordination.fence import Incarnations
from aal.engines.attempts import run_to_its_end
from aal.engines.base import Display, Engine, Plan, RunResult
from aal.engines.heartbeats import START_S
from aal.engines.processes import HUB_GONE, HubLost, Slot
from aal.engines.ray.asks import HUB, ask_of_hub, asks_of, names_cpus, next_ask
from aal.engines.ray.cluster import LOOK_S, Cluster, ended
from aal.engines.ray.connection import connected
from aal.engines.ray.files_actor import FilesWatch, started
from aal.engines.ray.growing import Growing
from aal.engines.ray.hub_client import RemoteHub
from aal.engines.ray.hub_host import CALLS_AT_ONCE, HubHost
from aal.engines.ray.identity import Identity
from aal.engines.ray.launcher import NOTE_S, RayLauncher, not_started
from aal.engines.ray.moves import AskNow
from aal.engines.ray.room import A_BIT, Ask, missing
from aal.engines.ray.workplace import Assignment, remove_from_machine
from aal.engines.supervisor import Supervisor, supervise
from aal.storage.atomic import TEMPORARY
from aal.storage.run_directory import writing

CLEAN_S = 5.0  # for machines to remove what a run has left there

log = logging.getLogger("aal")


class RayEngine(Engine):
    """Runs the roles as actors, on the machines of a cluster; replaces, from `run.db`, a hub that is lost."""

    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        settings, run_id = plan.settings.ray, secrets.token_hex(8)
        first: dict[str, Ask] = {}
        with connected(settings) as cluster:

            def lacks(machines: Sequence[Mapping[str, float]]) -> list[str]:
                first.update(asks_of(plan.settings, plan.roles, machines))
                return missing(first | ask_of_hub(plan.settings), machines, plan.roles)

            cluster.wait_for(lacks, settings.wait_s, display, caught)
            try:
                return run_to_its_end(
                    plan,
                    display,
                    caught,
                    lambda plan: _Attempt(plan, display, caught, cluster, run_id, first).run(),
                )
            finally:
                if cluster.may_be_asked():
                    _clean(cluster, run_id)


class _Attempt:
    """A hub and the processes around it, until the end of the run or of the hub."""

    def __init__(
        self,
        plan: Plan,
        display: Display,
        caught: list[str],
        cluster: Cluster,
        run_id: str,
        first: Mapping[str, Ask],
    ) -> None:
        self._plan = _absolute(plan)
        self._display = display
        self._caught = caught
        self._cluster = cluster
        self._run_id = run_id
        self._first = first
        self._run = self._plan.run

    def run(self) -> RunResult:
        """Runs until the end.

        Raises:
            HubLost: the hub is gone; the message says why.
        """
        readable = {arg for role in self._plan.roles for arg in role.args if isinstance(arg, pathlib.Path)}
        sign = self._run / f"{TEMPORARY}ray-{self._run_id}"
        with writing(self._run):
            sign.touch()
        here: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": self._cluster.on_this_machine()}
        files = started(here, self._run, readable)
        pin = self._plan.settings.ray.pins.get("hub")
        place = {"num_cpus": 0, "resources": {pin: A_BIT}} if pin else here
        host = ray.remote(HubHost).options(**place, max_concurrency=CALLS_AT_ONCE, max_restarts=0).remote()
        hub = RemoteHub(host, self._plan.settings.hung_after_s, self._caught, self._cluster.check)
        try:
            return self._supervised(hub, files, sign, readable)
        except (HubLost, *HUB_GONE):
            self._cluster.settle()
            raise HubLost(hub.loss or "hub: its process was killed") from None
        finally:
            for actor in (host, files) if self._cluster.may_be_asked() else ():
                with contextlib.suppress(RayError):
                    ray.kill(actor)
            sign.unlink(missing_ok=True)

    def _supervised(self, hub: RemoteHub, files: Any, sign: pathlib.Path, readable: set[pathlib.Path]) -> RunResult:
        plan, settings = self._plan, self._plan.settings
        self._wait_for_place(hub.host)
        opened = hub.host.open.remote(plan, sign, __version__)
        hub.asked(opened, START_S + settings.hung_after_s)
        seen = {path: Identity.of(path) for path in readable}

        def assigned(slot: Slot, incarnation: int, ask: Ask) -> Assignment:
            return Assignment(
                slot=Slot(replace(slot.role, rows=None), slot.index),
                rows=slot.role.rows_of(slot.index),
                incarnation=incarnation,
                run=self._run,
                run_id=self._run_id,
                settings=settings,
                hub=hub.host,
                files=files,
                sign=sign,
                seen=seen,
                shared=settings.ray.shared_folder,
                threads=ask.threads,
                version=__version__,
            )

        def asks_on(machines: Sequence[Mapping[str, float]]) -> AskNow:
            asks = asks_of(settings, plan.roles, machines)
            return functools.partial(next_ask, settings, asks, machines, self._first)

        incarnations = Incarnations(plan.epoch)
        fixed = [role.name for role in plan.roles if names_cpus(settings, role)]
        needed = [sign] if settings.ray.shared_folder else []
        if settings.pretrained is not None and pathlib.Path(settings.pretrained).is_absolute():
            needed.append(pathlib.Path(settings.pretrained))
        growing = Growing(self._cluster, hub, incarnations, asks_on, fixed, needed, self._display)
        watch = FilesWatch(files, settings.hung_after_s)
        launcher = RayLauncher(self._cluster, hub, incarnations, growing, assigned, watch, self._display)
        slots = [Slot(role, index) for role in plan.roles for index in range(role.slots)]
        slots.sort(key=lambda slot: slot.index > 0)  # one of each role before a second one of any
        return supervise(Supervisor(settings, slots, hub, launcher, self._display, self._caught), hub)

    def _wait_for_place(self, host: Any) -> None:
        """Waits for a machine that a pinned hub may run on, as long as that takes; a signal ends the wait.

        Raises:
            RunFailed: the head, or Ray on this machine, is gone.
        """
        if not (asks := ask_of_hub(self._plan.settings)):
            return
        begun, since, is_shown = host.begun.remote(), time.monotonic(), False
        while not ended([begun], LOOK_S) and not self._caught:
            self._cluster.check()
            if not is_shown and time.monotonic() - since > NOTE_S:
                text = not_started(HUB, asks[HUB])
                self._display.note(text)
                log.info(text)
                is_shown = True


def _absolute(plan: Plan) -> Plan:
    """Returns a plan whose paths do not depend on the directory in which it was made."""
    settings, given = plan.settings, plan.settings.pretrained
    paths = {"data_dir": os.path.abspath(pathlib.Path(settings.data_dir).expanduser())}
    if given is not None and pathlib.Path(given).expanduser().exists():  # else it is the name of some weights
        paths["pretrained"] = os.path.abspath(pathlib.Path(given).expanduser())
    roles = [replace(role, args=tuple(map(_absolute_path, role.args))) for role in plan.roles]
    return replace(plan, settings=settings.model_copy(update=paths), run=plan.run.resolve(), roles=roles)


def _absolute_path(arg: Any) -> Any:
    return pathlib.Path(os.path.abspath(arg)) if isinstance(arg, pathlib.Path) else arg


def _clean(cluster: Cluster, run_id: str) -> None:
    """Has each machine remove what killed processes have left."""
    with contextlib.suppress(RayError):
        task, places = ray.remote(remove_from_machine), cluster.on_each_machine()
        ended([task.options(num_cpus=0, scheduling_strategy=place).remote(run_id) for place in places], CLEAN_S)
