"""What a client keeps from round to round, of its optimiser and its batch norms, in files given to no other role."""

import io
import logging
import pathlib

import torch

from aal.coordination.federation import LocalJob, kept_with
from aal.storage.atomic import write_whole
from aal.storage.checksum import is_intact, with_checksum
from aal.training.trainer import Continuation

log = logging.getLogger("aal")


def load_continuation(run: pathlib.Path, job: LocalJob | None, epochs: int) -> Continuation:
    """Returns what a training goes on from.

    Args:
        run: the run directory.
        job: of the training; None where the client keeps nothing.
        epochs: of the client's trainings before it.
    """
    if job is None or not job.previous:
        return Continuation(epochs)
    path = run / kept_with(job.previous)
    try:
        if not is_intact(path):
            raise ValueError("it is missing, or its bytes are not those that were written")
        kept = torch.load(path, map_location="cpu", weights_only=True)
        return Continuation(epochs, kept["optimizer"], kept["statistics"])
    except Exception as error:  # PyTorch and pickle raise a dozen kinds; a new optimiser only trains a little less well
        log.warning("%s: cannot be read, so the client begins anew: %s", path, " ".join(str(error).split())[:200])
        return Continuation(epochs)


def save_continuation(run: pathlib.Path, model: str, continuation: Continuation) -> None:
    """Keeps what the next training of a client goes on from, unless that has numbers that are not finite.

    Args:
        run: the run directory.
        model: file of the local model that it is kept beside.
        continuation: of its training.
    """
    tensors = [value for kept in continuation.optimizer.values() for value in kept.values()]
    if not all(value.isfinite().all() for value in (*tensors, *continuation.statistics.values())):
        log.warning(
            "%s: what it kept has numbers that are not finite, so the client's next training begins anew", model
        )
        return
    buffer = io.BytesIO()
    torch.save({"optimizer": dict(continuation.optimizer), "statistics": dict(continuation.statistics)}, buffer)
    path = run / kept_with(model)
    path.parent.mkdir(exist_ok=True, mode=0o755)
    write_whole(path, with_checksum(buffer.getvalue()))
