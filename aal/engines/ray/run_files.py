"""The run's folder of a process on a machine that does not see the real one: what messages name comes and goes."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

from aal.engines.ray.node_store import NodeStore
from aal.storage.run_directory import MODELS, WRITTEN


class RunFiles:
    """A folder of one process, with the split and the files that it reads and writes.

    What messages list as `writes` goes to the run's own folder before the hub hears of it, and what they list as
    `reads` comes from there before a role does; see `aal.coordination.messages`.

    Args:
        here: the folder of this process, which is made.
        run: the run's folder, on the main process's machine.
        store: of this machine.
        sender: name of this process, different from that of any other.
    """

    def __init__(self, here: pathlib.Path, run: pathlib.Path, store: NodeStore, sender: str) -> None:
        self.here = here
        self._run = run
        self._store = store
        self._sender = sender
        self._obsolete: Sequence[str] = ()
        (here / MODELS).mkdir(parents=True, exist_ok=True)
        store.run_file(run / "split.npz", here / "split.npz")

    def send(self, args: Sequence[Any]) -> None:
        """Copies the files that a call is about to announce into the run's folder."""
        for name in _written(args):
            if (self.here / name).exists():
                self._store.send(self.here / name, name, self._sender)

    def announced(self, args: Sequence[Any]) -> None:
        """Removes what nobody will read any more once the files of a call are announced."""
        if self._obsolete and _written(args):
            self._store.remove(self._obsolete)
            self._obsolete = ()

    def bring(self, message: object) -> None:
        """Copies the files that a task needs into this folder, in the place of all others; some may be there still.

        One that is not in the run's folder does not come: the role that misses it says so.
        """
        wanted: Sequence[str] | None = getattr(message, "reads", None)
        if wanted is None:
            return
        self._obsolete = getattr(message, "obsolete", ())
        for folder in WRITTEN:
            for path in (self.here / folder).glob("[!.]*"):
                if f"{folder}/{path.name}" not in wanted:
                    with contextlib.suppress(OSError):
                        path.unlink()
        for name in wanted:
            if not (self.here / name).exists():
                with contextlib.suppress(FileNotFoundError):
                    self._store.run_file(self._run / name, self.here / name)


def _written(args: Sequence[Any]) -> list[str]:
    return [name for message in args for name in getattr(message, "writes", ())]
