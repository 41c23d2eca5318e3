"""Scoring images with a model: plain functions, no processes, no waiting."""

import contextlib
import pathlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from aal.config.errors import UserError
from aal.storage.model_files import load_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import (
    ADVICE,
    arithmetic,
    computes_in_bf16,
    explained_memory_errors,
    is_out_of_memory,
    release_cached_memory,
)
from aal.training.heads import find_head
from aal.training.images import Ids, ImageBank, Normalisation, Pixels
from aal.training.networks import restore_model
from aal.training.outputs import Outputs

PIXELS_SCORED_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}  # the images of a batch together; more is not faster
SIZES_COST_ON = ("cuda",)  # where cuDNN looks for its fastest kernels again for each size of a batch
SMALLEST_SIZE = 64


def predict(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    *,
    normalisation: Normalisation,
    precision: str = "float32",
    batch_size: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns the logits of images, float32 (n, classes) on the CPU.

    Args:
        model: on the bank's device, best as `fuse_batch_norm` gives it; it is left in evaluation mode.
        bank: the images.
        ids: (n,) of those to score; may be none.
        normalisation: of the pixels, as in training.
        precision: as in the training settings.
        batch_size: images at a time; None for what the device is fast with, and memory does not depend on.
        heartbeat: called before each batch; what it raises ends the work.

    Raises:
        UserError: the device has no memory left for a single image; before that, the batches are halved.
    """
    model.eval()
    (logits,) = _run(lambda images: (model(images),), bank, ids, normalisation, precision, batch_size, heartbeat)
    return logits


def _run(
    network: Callable[[Tensor], tuple[Tensor, ...]],
    bank: ImageBank,
    ids: Ids,
    normalisation: Normalisation,
    precision: str,
    batch_size: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[Tensor]:
    """Returns the columns that a function of images gives, float32 on the CPU, batch by batch."""
    pixels = Pixels(normalisation, bank.device)
    batch_size = batch_size or max(1, PIXELS_SCORED_AT_ONCE[bank.device.type] // bank.pixels)
    wanted = torch.as_tensor(ids, device=bank.device)
    columns: list[Tensor] = []  # filled batch by batch: many small tensors among the large ones scatter the memory
    done = 0
    with torch.inference_mode(), arithmetic(bank.device, precision):
        while not columns or done < len(wanted):
            heartbeat()
            found: tuple[Tensor, ...] = ()
            batch = wanted[done : done + batch_size]
            try:
                found = network(pixels(bank.batch(_padded(batch, batch_size))))
            except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
                if not is_out_of_memory(error):
                    raise
            if not found:
                if batch_size == 1:
                    raise UserError(f"{bank.device}: has no memory left for one image; {ADVICE}")
                batch_size //= 2  # the result is the same
                release_cached_memory()
                continue
            columns = columns or [torch.empty(len(wanted), one.shape[1], device=bank.device) for one in found]
            for column, part in zip(columns, found, strict=True):
                column[done : done + len(batch)] = part[: len(batch)]
            done += len(batch)
    return [column.cpu() for column in columns]


def _padded(ids: Tensor, most: int) -> Tensor:
    """Returns the ids of a last batch, repeated up to a power of two, where every new size of a batch is expensive."""
    if len(ids) == 0 or len(ids) == most or ids.device.type not in SIZES_COST_ON:
        return ids
    size = min(most, max(SMALLEST_SIZE, 1 << (len(ids) - 1).bit_length()))
    return ids[torch.arange(size, device=ids.device) % len(ids)]


@contextlib.contextmanager
def _embeddings_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keeps the inputs of the network's output layer while it runs."""
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
        with _embeddings_of(model) as kept:

            def both(images: Tensor) -> tuple[Tensor, Tensor]:
                kept.clear()
                logits = model(images)
                return logits, kept[-1]

            logits, embeddings = _run(both, self._bank, ids, normalisation, precision, heartbeat=self._heartbeat)
        return Outputs(logits.numpy(), torch.softmax(logits, dim=1).numpy(), embeddings.numpy())

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Scores images with dropout switched on, all other layers as in evaluation; (passes, n, classes) float32."""
        model, normalisation = self._load()
        dropouts = [layer for layer in model.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
        if not any(layer.p for layer in dropouts):
            raise UserError("query_strategy: Monte-Carlo passes need a network with dropout, such as vgg16")
        model.eval()
        for layer in dropouts:
            layer.train()
        found = []
        device = self._bank.device
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                for _ in range(passes):
                    (logits,) = _run(
                        lambda images: (model(images),),
                        self._bank,
                        ids,
                        normalisation,
                        "auto",
                        heartbeat=self._heartbeat,
                    )
                    found.append(torch.softmax(logits, dim=1))
        finally:
            model.eval()
        return torch.stack(found).numpy()

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
