"""What a process of a role is given, and what it has on its machine: the run's folder or one of its own, and images."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import filelock
import numpy as np

from aal.config.settings import Settings
from aal.engines.processes import Slot
from aal.engines.ray.hub_client import HubClient
from aal.engines.ray.identity import Identity
from aal.engines.ray.node_store import SHARED, NodeStore
from aal.engines.ray.run_files import RunFiles
from aal.engines.ray.store_folder import ALIVE, remove_abandoned, remove_run, store_folder

LOCK_S = 5.0  # for the lock of a folder that no other process has


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


class Workplace:
    """What a process has on its machine: the run's folder or one of its own, and the images."""

    def __init__(self, assignment: Assignment, hub: HubClient) -> None:
        self._one = assignment
        self._hub = hub
        self._folder = store_folder() / "runs" / assignment.run_id / assignment.name
        self._alive = filelock.FileLock(self._folder / ALIVE)
        self.arriving: dict[pathlib.Path, Callable[[np.ndarray], None]] = {}  # see `Context`

    def prepare(self, heartbeat: Callable[[], None]) -> tuple[pathlib.Path, Any]:
        """Makes sure that all is there; returns the run's folder, and the role with the paths of this machine."""
        one = self._one
        paths = [arg for arg in one.slot.role.args if isinstance(arg, pathlib.Path)]
        if not (one.works_in_run and all(map(one.sees, paths))):
            self._settle_in()
        store = NodeStore(store_folder(), one.run_id, one.files, heartbeat) if one.shared is not True else None
        role, run = one.slot.role, one.run
        if store is not None:
            args = tuple(self._here(arg, store) if isinstance(arg, pathlib.Path) else arg for arg in role.args)
            role = dataclasses.replace(role, args=args)
            if not one.works_in_run:
                self._hub.files = RunFiles(self._folder, run, store, one.name)
                run = self._folder
        return run, role

    def _settle_in(self) -> None:
        """Makes the folder of this process, and holds its lock as long as the process lives."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks
            self._alive.acquire(timeout=LOCK_S)
        remove_abandoned(store_folder())

    def _here(self, path: pathlib.Path, store: NodeStore) -> pathlib.Path:
        """Returns the path on this machine of what is at a path of the main process's."""
        if self._one.sees(path):
            return path
        listed = store.listed(path)
        is_file = listed == [path]
        folder = self._folder / "images" / (path.parent.name if is_file else path.name)
        for file in listed:
            target = folder / file.name
            if not target.exists() and not self._arrives(file, target, store):
                rows = self._one.rows if is_file and file.suffix == ".npy" else None
                store.image_file(file, target, rows)
        return folder / path.name if is_file else folder

    def _arrives(self, path: pathlib.Path, target: pathlib.Path, store: NodeStore) -> bool:
        """Whether a file is such that its rows come when a role asks for them; then there is a place for them."""
        if not self._one.slot.role.asks_for_images or path.name != "images.npy":
            return False
        arrive = store.arriving(path, target, int(self._one.settings.ray.whole_images_gib * 2**30))
        if arrive is not None:
            self.arriving[target] = arrive
        return arrive is not None

    def remove(self) -> None:
        """Removes the folder of this process; the last one of the run on this machine removes what they shared."""
        self._alive.release()
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            if {path.name for path in self._folder.parent.iterdir()} <= {SHARED}:
                shutil.rmtree(self._folder.parent / SHARED, ignore_errors=True)
                self._folder.parent.rmdir()  # stays if another process of the run has begun here meanwhile


def remove_from_machine(run_id: str) -> None:
    """Removes what the processes of a run have left on the machine where this is called."""
    remove_run(store_folder(), run_id)
