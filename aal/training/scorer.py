"""A published model as workers use it: read from its file when it is asked for, kept for the next selection."""

import contextlib
import pathlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.storage.model_files import load_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.consistent_dropout import sampled_network
from aal.training.devices import computes_in_bf16, explained_memory_errors
from aal.training.heads import find_head
from aal.training.images import ImageBank, Normalisation
from aal.training.inference import predict, run_batches
from aal.training.networks import restore_model
from aal.training.outputs import Outputs
from aal.training.snapshots import votes_in


@contextlib.contextmanager
def embeddings_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keeps the inputs of the network's output layer while it runs, (n, d) of each pass.

    Raises:
        UserError: the network has no linear layer.
    """
    head = find_head(model)
    if head is None:
        raise UserError("query_strategy: embeddings are the inputs of the last linear layer, and the network has none")
    kept: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].flatten(1)))
    try:
        yield kept
    finally:
        hook.remove()


class ModelScorer:
    """A model file that scores the images of a bank; it is read when the first score is asked for.

    Args:
        path: of the file.
        bank: the images, on the device to score on.
        slot: place among the models of a selection; each place of each device keeps the model that it had last.
        trusted: names of users' own networks that may be imported for the file.
        heartbeat: called before each batch; what it raises ends the work.
    """

    def __init__(
        self,
        path: pathlib.Path,
        bank: ImageBank,
        slot: int = 0,
        trusted: Collection[str] = (),
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._bank, self._slot, self._trusted = path, bank, slot, trusted
        self._heartbeat = heartbeat

    @property
    def is_coarse(self) -> bool:
        """Whether precision "auto" is bfloat16 on the device."""
        return computes_in_bf16(self._bank.device)

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Scores images in one pass; see `aal.strategies.pool.Scorer`."""
        model, normalisation = self._load()
        if not with_embeddings:
            logits = predict(
                model,
                self._bank,
                ids,
                normalisation=normalisation,
                precision=precision,
                heartbeat=self._heartbeat,
            )
            return Outputs(logits.numpy(), torch.softmax(logits, dim=1).numpy(), None)
        model.eval()
        with embeddings_of(model) as kept:

            def both(images: Tensor) -> tuple[Tensor, Tensor]:
                kept.clear()
                logits = model(images)
                return logits, kept[-1]

            logits, embeddings = run_batches(both, self._bank, ids, normalisation, precision, heartbeat=self._heartbeat)
        return Outputs(logits.numpy(), torch.softmax(logits, dim=1).numpy(), embeddings.numpy())

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Scores images with dropout switched on, all other layers as in evaluation; (passes, n, classes) float32."""
        model, normalisation = self._load()
        model.eval()
        found: np.ndarray | None = None
        device = self._bank.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for number in range(passes):
                with sampled_network(model):
                    (logits,) = run_batches(
                        lambda images: (model(images),),
                        self._bank,
                        ids,
                        normalisation,
                        "auto",
                        heartbeat=self._heartbeat,
                    )
                found = np.empty((passes, *logits.shape), np.float32) if found is None else found
                found[number] = torch.softmax(logits, dim=1).numpy()
        assert found is not None
        return found

    def votes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the votes of the snapshots on images, (snapshots, n); read once from the file.

        Raises:
            UserError: the file holds none on all of these images.
        """
        key = (self._path, self._path.stat().st_mtime_ns)
        if self._slot not in _votes or _votes[self._slot][0] != key:
            found = votes_in(load_model(self._path))
            if found is None:
                raise UserError(
                    f"{self._path}: holds no votes of snapshots; set `snapshots` to have trainings keep them"
                )
            _votes[self._slot] = key, *found
        _, known, votes = _votes[self._slot]
        at = np.searchsorted(known, ids)
        if not np.array_equal(known.take(at, mode="clip") if len(known) else known, ids):
            raise UserError(f"{self._path}: its snapshots did not vote on all of the candidates")
        return votes[:, at]

    def _load(self) -> tuple[nn.Module, Normalisation]:
        """The model, ready to score; from the cache unless the file was replaced."""
        place, key = (self._bank.device, self._slot), (self._path, self._path.stat().st_mtime_ns)
        known = _loaded.get(place)
        if known is None or known[0] != key:
            _loaded.pop(place, None)  # the memory of the old one is free before the new one is there
            payload = load_model(self._path)
            with explained_memory_errors("a model"):
                model = restore_model(payload, self._path, self._trusted).to(self._bank.device)
            known = _loaded[place] = key, fuse_batch_norm(model, inplace=True), payload["normalisation"]
        return known[1], known[2]


# Of each device and place the last one: the workers of a process mostly choose with the same model, the newest.
_loaded: dict[tuple[torch.device, int], tuple[tuple[pathlib.Path, int], nn.Module, Normalisation]] = {}
# Of each place the votes of the last file that was asked for.
_votes: dict[int, tuple[tuple[pathlib.Path, int], np.ndarray, np.ndarray]] = {}
