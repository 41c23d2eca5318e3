"""Votes of snapshots: which class each of the last epochs of a training gives the unlabelled images.

They are cast at the end of an epoch, while the network is there, and kept in the model file: a byte a vote, where the
weights of the snapshots would be megabytes each. A selection then reads them and scores nothing, and shards, batches
and strategies share what was computed once for a version.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aal.training.trainer import TrainingTask


class SnapshotVotes:
    """Collects the votes of a training's last `task.snapshots` epochs on `task.candidates`.

    Args:
        task: of the training.
    """

    def __init__(self, task: TrainingTask) -> None:
        self._task = task
        self._first = task.training.epochs - task.snapshots + 1
        self._votes: list[Tensor] = []

    def cast(self, model: nn.Module, epoch: int) -> None:
        """Lets the network vote, without augmentation, where the epoch is one of the last ones."""
        task = self._task
        if not task.snapshots or epoch < self._first:
            return
        logits = task.logits(model, task.candidates)
        self._votes.append(logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32))

    def collected(self, model: nn.Module) -> Tensor | None:
        """Returns the votes, (snapshots, candidates) uint8 or int32; None where none are wanted.

        Args:
            model: with the weights that are kept; it votes alone where the training broke off before the last epochs.
        """
        if not self._votes:
            self.cast(model, self._task.training.epochs)
        return torch.stack(self._votes) if self._votes else None


def snapshots_payload(task: TrainingTask, votes: Tensor) -> dict[str, Tensor]:
    """Returns what a model file holds of the votes of a training."""
    return {"ids": torch.as_tensor(task.candidates), "votes": votes}


def votes_in(payload: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the ids (n,), ascending, and votes (snapshots, n) that a model file holds; None where it holds none."""
    kept = payload.get("snapshots")
    return None if kept is None else (kept["ids"].numpy(), kept["votes"].numpy())
