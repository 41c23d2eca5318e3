"""The roles as actors of a Ray cluster, the hub one of them; see docs/ray.md."""

import contextlib
import logging
import pathlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from aal import __version__
from aal.engines.attempts import run_to_its_end
from aal.engines.base import Display, Engine, Plan, RunResult
from aal.engines.heartbeats import START_S
from aal.engines.processes import HUB_GONE, HubLost, Slot
from aal.engines.ray.asks import A_BIT, Ask, asks_of
from aal.engines.ray.cluster import Cluster, connected, ended
from aal.engines.ray.files import Files
from aal.engines.ray.hub_client import RemoteHub
from aal.engines.ray.hub_host import CALLS_AT_ONCE, HubHost
from aal.engines.ray.identity import Identity
from aal.engines.ray.launcher import RayLauncher
from aal.engines.ray.role_host import Assignment, remove_from_machine
from aal.engines.supervisor import Supervisor, supervise

CLEAN_S = 5.0  # for machines to remove what a run has left there

log = logging.getLogger("aal")


class RayEngine(Engine):
    """Runs the roles as actors, on the machines of a cluster; replaces, from `run.db`, a hub that is lost."""

    def _run(self, plan: Plan, display: Display, caught: list[str]) -> RunResult:
        settings, incarnations, run_id = plan.settings.ray, Counter[str](), secrets.token_hex(8)
        with connected(settings) as cluster:

            def asks(machines: Sequence[Mapping[str, float]]) -> dict[str, Ask]:
                return asks_of(plan.settings, plan.roles, machines)

            cluster.wait_for(asks, settings.wait_s, display, caught)
            try:
                return run_to_its_end(
                    plan,
                    display,
                    caught,
                    lambda plan: _Attempt(plan, display, caught, cluster, incarnations, run_id).run(),
                )
            finally:
                _clean(cluster, run_id)


class _Attempt:
    """A hub and the processes around it, until the end of the run or of the hub."""

    def __init__(
        self,
        plan: Plan,
        display: Display,
        caught: list[str],
        cluster: Cluster,
        incarnations: Counter[str],
        run_id: str,
    ) -> None:
        self._plan = plan
        self._display = display
        self._caught = caught
        self._cluster = cluster
        self._incarnations = incarnations
        self._run_id = run_id
        self._run = plan.run.resolve()

    def run(self) -> RunResult:
        """Runs until the end.

        Raises:
            HubLost: the hub is gone; the message says why.
        """
        readable = {arg for role in self._plan.roles for arg in role.args if isinstance(arg, pathlib.Path)}
        here: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": self._cluster.on_this_machine()}
        files = ray.remote(Files).options(**here, max_restarts=-1, max_task_retries=-1).remote(self._run, readable)
        pin = self._plan.settings.ray.pins.get("hub")
        place = {"num_cpus": 0, "resources": {pin: A_BIT}} if pin else here
        host = ray.remote(HubHost).options(**place, max_concurrency=CALLS_AT_ONCE, max_restarts=0).remote()
        hub = RemoteHub(host, self._plan.settings.hung_after_s, self._caught)
        try:
            return self._supervised(hub, files, readable)
        except (HubLost, *HUB_GONE):
            raise HubLost(hub.loss or "hub: its process was killed") from None
        finally:
            for actor in (host, files):
                with contextlib.suppress(RayError):
                    ray.kill(actor)

    def _supervised(self, hub: RemoteHub, files: Any, readable: set[pathlib.Path]) -> RunResult:
        plan, settings = self._plan, self._plan.settings
        opened = hub.host.open.remote(plan, Identity.of(self._run / "config.yaml"))
        hub.asked(opened, START_S + settings.hung_after_s)
        seen = {path: Identity.of(path) for path in readable}
        with contextlib.suppress(FileNotFoundError):  # of a run that computes nothing
            seen[self._run] = Identity.of(self._run / "split.npz")

        def assigned(slot: Slot, incarnation: int, ask: Ask) -> Assignment:
            return Assignment(
                slot=slot,
                incarnation=incarnation,
                run=self._run,
                run_id=self._run_id,
                settings=settings,
                hub=hub.host,
                files=files,
                seen=seen,
                shared=settings.ray.shared_folder,
                threads=ask.threads,
                version=__version__,
            )

        def asks() -> dict[str, Ask]:
            return asks_of(settings, plan.roles, self._cluster.machines())

        launcher = RayLauncher(self._cluster, hub, self._incarnations, asks, assigned, self._display)
        slots = [Slot(role, index) for role in plan.roles for index in range(role.slots)]
        slots.sort(key=lambda slot: slot.index > 0)  # one of each role before a second one of any
        return supervise(Supervisor(settings, slots, hub, launcher, self._display, self._caught), hub)


def _clean(cluster: Cluster, run_id: str) -> None:
    """Has each machine remove what killed processes have left."""
    with contextlib.suppress(RayError):
        task, places = ray.remote(remove_from_machine), cluster.on_each_machine()
        ended([task.options(num_cpus=0, scheduling_strategy=place).remote(run_id) for place in places], CLEAN_S)
