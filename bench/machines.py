"""Machines of a Ray cluster that are all this one: each has a cache of its own, and can be lost."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import unittest.mock
from collections.abc import Mapping
from typing import Any

import psutil

OBJECTS = 100 * 2**20  # bytes of each object store
KILL_S = 10.0  # for killed processes to end
STOP_S = 5.0  # for a process to end by itself; `ray stop` gives about as long
STOPS = {"raylet": 0, "gcs_server": 2}  # the order in which `ray stop` ends processes; all others are 1
RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")  # titles of what does not end with a run
# A machine that is silent for some seconds counts as lost; the names are Ray's own.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


class Machines:
    """A head and other machines.

    Args:
        folder: for their caches.
        cpus: of each machine, by its name, the head's first; the name is a resource too, by which roles are
            pinned, and `more` is one of all but the head.
        objects: bytes of each object store.
    """

    def __init__(self, folder: pathlib.Path, cpus: Mapping[str, int], objects: int = OBJECTS) -> None:
        from ray.cluster_utils import Cluster

        os.environ.update(QUICK)
        self.folder = folder
        self._cpus = cpus
        self._objects = objects
        self._cluster: Any = Cluster()
        self._there: dict[str, Any] = {}
        for name in cpus:
            self.add(name)

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def add(self, name: str) -> None:
        """Adds a machine."""
        with unittest.mock.patch("ray._private.utils.set_sigterm_handler"):  # ours stays; a thread has none to set
            self._there[name] = self._cluster.add_node(
                num_cpus=self._cpus[name],
                resources={name: 1} | ({"more": 1} if len(self._there) else {}),
                object_store_memory=self._objects,
                include_dashboard=False,
                env_vars={"XDG_CACHE_HOME": str(self.folder / name)},
            )

    def lose(self, name: str) -> None:
        """Kills all processes of a machine, as a power cut does, and forgets its disk."""
        machine = self._there.pop(name)
        begun = [psutil.Process(one.process.pid) for some in machine.all_processes.values() for one in some]
        actors = [child for process in begun for child in process.children(recursive=True)]
        self._cluster.remove_node(machine, allow_graceful=False)
        for actor in actors:  # they would end by themselves a moment later
            with contextlib.suppress(psutil.NoSuchProcess):
                actor.kill()
        psutil.wait_procs(actors, KILL_S)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def stop(self, name: str) -> None:
        """Ends a machine's processes as `ray stop` does there: the raylet's, the others', then those of the head."""
        machine = self._there.pop(name)
        for _, processes in sorted(machine.all_processes.items(), key=lambda one: STOPS.get(one[0], 1)):
            for one in processes:
                one.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(STOP_S)
        self._cluster.remove_node(machine, allow_graceful=False)

    def behead(self, name: str) -> None:
        """Kills the process by which a machine is the head of its cluster; the others of it do not end with that."""
        for one in self._there[name].all_processes["gcs_server"]:
            one.process.kill()

    def actors(self) -> list[str]:
        """Returns the titles of the actors that are on all machines, by their processes."""
        titles = []
        for machine in self._there.values():
            for raylet in machine.all_processes["raylet"]:
                for process in psutil.Process(raylet.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        titles += [word for word in process.cmdline()[:1] if word.startswith("ray::")]
        return [title for title in titles if not title.startswith(RAYS_OWN)]

    def images(self, name: str) -> list[str]:
        """Returns the files of images that a machine has been sent."""
        return sorted(path.name for path in (self.folder / name / "aal" / "ray" / "images").glob("*[0-9a-f]"))

    def close(self) -> None:
        """Ends all of it."""
        self._cluster.shutdown()
