"""The run's folder of a process on a machine that does not see the real one: what messages name comes and goes."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

from aal.coordination.messages import ModelRef, SelectionGrant, TrainedModel, TrainingJob
from aal.engines.ray.node_store import NodeStore
from aal.storage.run_directory import MODELS


class RunFiles:
    """A folder of one process, with the split and the models that it reads and makes.

    Models go to the run's own folder before the hub hears of them, and come from there before a role does.

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
        (here / MODELS).mkdir(parents=True, exist_ok=True)
        store.run_file(run / "split.npz", here / "split.npz")

    def send(self, args: Sequence[Any]) -> None:
        """Copies the model that a call is about to publish into the run's folder."""
        for message in args:
            if isinstance(message, TrainedModel) and message.checksum is not None:
                self._store.send(self.here / message.path, message.path, self._sender)
                (self.here / message.path).unlink()

    def bring(self, message: object) -> None:
        """Copies the models that an answer of the hub names into this folder, in the place of those before them."""
        models: Sequence[ModelRef] = ()
        if isinstance(message, SelectionGrant):
            models = message.models
        elif isinstance(message, TrainingJob):
            models = [message.start] if message.start else []
        if not models:
            return
        wanted = {model.path for model in models}
        for path in (self.here / MODELS).glob("[!.]*"):
            if f"{MODELS}/{path.name}" not in wanted:
                with contextlib.suppress(OSError):
                    path.unlink()
        for name in wanted:
            if not (self.here / name).exists():
                self._store.run_file(self._run / name, self.here / name)
