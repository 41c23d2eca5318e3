"""What a client keeps from round to round, of its optimiser and its batch norms, in files that it never sends."""

import io
import logging
import pathlib

import torch

from aal.coordination.federation import LocalJob
from aal.storage.atomic import write_whole
from aal.training.trainer import Continuation

FOLDER = "clients"  # of the run directory

log = logging.getLogger("aal")


def load_continuation(run: pathlib.Path, client: int, job: LocalJob | None, epochs: int) -> Continuation:
    """Returns what a training goes on from.

    Args:
        run: the run directory.
        client: that trains.
        job: of the training; None where the client keeps nothing.
        epochs: of the client's trainings before it.
    """
    if job is None or job.previous is None:
        return Continuation(epochs)
    path = _path(run, client, job.previous)
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        return Continuation(epochs, kept["optimizer"], kept["statistics"])
    except Exception as error:  # PyTorch and pickle raise a dozen kinds; a new optimiser only trains a little less well
        log.warning("%s: cannot be read, so the client begins anew: %s", path, " ".join(str(error).split())[:200])
        return Continuation(epochs)


def save_continuation(run: pathlib.Path, client: int, job: LocalJob, continuation: Continuation) -> None:
    """Keeps what the next training of a client goes on from."""
    buffer = io.BytesIO()
    torch.save({"optimizer": dict(continuation.optimizer), "statistics": dict(continuation.statistics)}, buffer)
    path = _path(run, client, job.number)
    path.parent.mkdir(exist_ok=True, mode=0o755)
    write_whole(path, buffer.getvalue())


def _path(run: pathlib.Path, client: int, job: int) -> pathlib.Path:
    return run / FOLDER / f"kept-{job:05d}-client-{client}.pt"
