"""How much work a training or a selection is, for the virtual clock; no PyTorch is needed to know."""

import math

from aal.config.registry import STRATEGIES
from aal.config.settings import Settings, TrainingSettings
from aal.coordination.clock import Work
from aal.coordination.federation import LocalJob
from aal.coordination.messages import SelectionGrant, TrainingJob
from aal.coordination.partition import Sizes


def epoch_shape(labels: int, training: TrainingSettings) -> tuple[int, int]:
    """Returns the steps of an epoch and the images of a step: at least 2, since one has no variance for batch norm."""
    size = max(2, min(training.batch_size, labels))
    return math.ceil(labels / size), size


def training_cost(settings: Settings, server: int, job: TrainingJob, sizes: Sizes) -> Work:
    """Returns how much a training is: the images it learns from and those it scores, epoch by epoch.

    After an epoch the validation images are scored, after the last ones the unlabelled images too where snapshots vote
    on them, and at the end the test images.

    Args:
        settings: of the run.
        server: number of the server.
        job: to do.
        sizes: of the parts of the image set.
    """
    training = settings.training
    steps, size = epoch_shape(job.labels, training)
    validations = training.epochs - min(training.validate_after, training.epochs - 1)
    votes = settings.votes_kept * max(0, sizes.trainable - job.labels)
    scored = validations * sizes.validation + votes + sizes.test
    return Work("training", server, job.number, training.epochs * steps * size, scored)


def local_training_cost(settings: Settings, client: int, job: LocalJob, labels: int) -> Work:
    """Returns how much a client's training on its own labels is; a teacher doubles the images of a step.

    Args:
        settings: of the run.
        client: its number.
        job: to do.
        labels: of its own.
    """
    training, rules = settings.training, settings.federated
    steps, size = epoch_shape(labels, training)
    trained = training.epochs * steps * size
    taught = trained if rules is not None and rules.compensation and job.start is not None else 0
    return Work("training", client, job.number, trained + taught, taught, client)


def selection_cost(
    worker: int, grant: SelectionGrant, strategy: str, remaining: int, passes: int = 1, on_features: bool = False
) -> Work:
    """Returns how much a selection is.

    A strategy registered with `scores=False` scores nothing, one with `scores="embeddings"` nothing where features
    stand for the embeddings.

    The others score the candidates with each of the granted models, those with `models="first"` with the first alone.
    What a strategy computes from the outputs is not counted, nor the images of L that it may look at.

    Args:
        worker: number of the worker.
        grant: to select.
        strategy: its name; a user's own is taken to score all candidates.
        remaining: candidates.
        passes: of each granted model over the candidates.
        on_features: whether strategies get features as embeddings.
    """
    facts = STRATEGIES.facts(strategy)
    scores = facts.get("scores", True)
    scores_nothing = not scores or (on_features and scores == "embeddings")
    models = 1 if facts.get("models") == "first" else len(grant.models)
    scored = 0 if scores_nothing else remaining * passes * models
    return Work("selection", worker, grant.batch, trained=0, scored=scored)
