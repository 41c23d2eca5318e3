"""A trainer of one's own: every class counts alike, however few of its images were chosen.

aal run --config small.yaml trainer=mytrainer:balanced
"""

import dataclasses

import numpy as np
from torch import nn

from aal.app.server_train import fit
from aal.training.trainer import FittedModel, TrainingTask


def balanced(model: nn.Module, task: TrainingTask) -> FittedModel:
    """Repeats the images of each class until all classes have as many as the largest, and trains as `fit` does."""
    rows = [np.flatnonzero(task.labels == label) for label in np.unique(task.labels)]
    largest = max(map(len, rows))
    repeated = np.concatenate([np.resize(of_class, largest) for of_class in rows])
    return fit(model, dataclasses.replace(task, ids=task.ids[repeated], labels=task.labels[repeated]))
