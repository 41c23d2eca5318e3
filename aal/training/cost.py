"""How much work a training or a selection is, for the virtual clock; no PyTorch is needed to know."""

import math

from aal.config.registry import STRATEGIES
from aal.config.settings import Settings, TrainingSettings
from aal.coordination.clock import Work
from aal.coordination.messages import SelectionGrant, TrainingJob


def epoch_shape(labels: int, training: TrainingSettings) -> tuple[int, int]:
    """Returns the steps of an epoch and the images of a step: at least 2, since one has no variance for batch norm."""
    size = max(2, min(training.batch_size, labels))
    return math.ceil(labels / size), size


def training_cost(settings: Settings, server: int, job: TrainingJob, validation: int, test: int) -> Work:
    """Returns how much a training is: the images it learns from and those it scores, epoch by epoch.

    Args:
        settings: of the run.
        server: number of the server.
        job: to do.
        validation: images scored after an epoch.
        test: images scored at the end.
    """
    training = settings.training
    steps, size = epoch_shape(job.labels, training)
    validations = training.epochs - min(training.validate_after, training.epochs - 1)
    return Work("training", server, job.number, training.epochs * steps * size, validations * validation + test)


def selection_cost(worker: int, grant: SelectionGrant, strategy: str, remaining: int, passes: int = 1) -> Work:
    """Returns how much a selection is: a strategy registered with `scores=False` scores nothing.

    What a strategy computes from the outputs is not counted, nor the images of L that it may look at.

    Args:
        worker: number of the worker.
        grant: to select.
        strategy: its name; a user's own is taken to score all candidates.
        remaining: candidates.
        passes: of each granted model over the candidates.
    """
    scores = STRATEGIES.facts(strategy).get("scores", True)
    scored = remaining * passes * len(grant.models) if scores else 0
    return Work("selection", worker, grant.batch, trained=0, scored=scored)
