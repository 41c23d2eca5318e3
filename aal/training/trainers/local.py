"""What a client of a federation trains: balanced softmax, knowledge compensation, a proximal term.

The formulas are those of Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", 2023 (KAFAL), as in
its code, but for some mistakes that `published_quirks` bring back.
"""

import copy
import dataclasses
import functools
from collections.abc import Collection
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Beta

from aal.config.registry import TRAINERS
from aal.training.acceleration import fuse_batch_norm
from aal.training.objective import Objective
from aal.training.trainer import FittedModel, Trainer, TrainingTask

Quirk: TypeAlias = Literal["stale_unlabelled", "one_partner", "teacher_in_training_mode", "absent_without_weight"]
MIXING = 2.0  # both parameters of the Beta distribution that mixes two images


@TRAINERS.register("train_local")
def train_local(
    model: nn.Module,
    task: TrainingTask,
    balanced: bool = True,
    proximal: Annotated[float, Field(ge=0, le=1000)] = 0.0,
    published_quirks: Annotated[tuple[Quirk, ...], Field(max_length=4)] = (),
) -> FittedModel:
    """Trains a client's model as `fit` does, on what `LocalObjective` minimises.

    With a teacher in the task, knowledge is compensated. Without one, without balance and proximal term, it is `fit`.

    Args:
        model: with the weights of the server's model; trained in place.
        task: of the client: its labelled images, its candidates, its teacher, its continuation.
        balanced: whether the softmax is balanced by the client's own labels.
        proximal: weight of the squared distance from the server's weights (FedProx).
        published_quirks: mistakes of the published code to repeat; see `LocalObjective` and `unlabelled_of`.
    """
    objective = functools.partial(
        LocalObjective, balanced=balanced, proximal=proximal, quirks=frozenset(published_quirks)
    )
    fit: Trainer = TRAINERS.load("fit")
    return fit(model, dataclasses.replace(task, objective=objective))


def unlabelled_of(shard: np.ndarray, labelled: np.ndarray, published_quirks: Collection[Quirk]) -> np.ndarray:
    """Returns the candidates that a client's knowledge is compensated on: what is not labelled at this moment.

    Args:
        shard: (n,) ids that were unlabelled at the start, ascending.
        labelled: (m,) ids.
        published_quirks: under `stale_unlabelled` it is the whole shard in every cycle, for the published code keeps
            reading the sets of the first one.
    """
    return shard if "stale_unlabelled" in published_quirks else np.setdiff1d(shard, labelled, assume_unique=True)


class LocalObjective(Objective):
    """Cross entropy + compensation + proximal term.

    - Balanced softmax: the cross entropy is of s_y + ln n_y, with s the logits and n_y the client's labels of class y.
      A class without any has the probability 0: it is in no batch, and what the server's model knows of it is not
      unlearnt.
    - Compensation: u and u' are unlabelled images under augmentation, beta ~ Beta(2, 2), x = beta u + (1 - beta) u'.
      With t and s the probabilities by teacher and model, it is the mean over x of
      (beta w[y] + (1 - beta) w[y']) * mean over classes of t (ln t - ln s).
      y is the class that the teacher gives x, y' the one that it gives the image mixed for u' in its own place;
      w_y = (1 / n_y) / sum_c (1 / n_c), where a class without labels counts as if it had one. Each image has a partner
      of its own, and the teacher is in evaluation mode.
    - Proximal term: proximal / 2 * |theta - theta_0|^2, with theta_0 the weights at the start (FedProx: Li et al.,
      2020, equation 2).

    Args:
        model: on its device, with the server's weights.
        task: of the client; with its teacher.
        balanced: as in `train_local`.
        proximal: as in `train_local`.
        quirks: `one_partner`: all images of a batch are mixed with the same one. `teacher_in_training_mode`: it
            normalises by the statistics of the batch. `absent_without_weight`: w_y is 0 for classes without labels.
    """

    def __init__(
        self, model: nn.Module, task: TrainingTask, *, balanced: bool, proximal: float, quirks: Collection[Quirk]
    ) -> None:
        super().__init__(model, task)
        self._task, self._quirks, self._proximal = task, quirks, proximal
        labels = torch.as_tensor(task.labels, device=self.device)
        counts = torch.bincount(labels, minlength=task.classes).float()
        self._prior = counts.log() if balanced else None
        self._start = [(one, one.detach().clone()) for one in model.parameters() if proximal and one.requires_grad]
        self._teacher = None
        if task.teacher is not None and len(task.candidates):
            self._teacher = _teacher(task.teacher, model, training="teacher_in_training_mode" in quirks)
            inverse = 1 / counts if "absent_without_weight" in quirks else 1 / counts.clamp(min=1)
            inverse[inverse.isinf()] = 0
            self._weights = inverse / inverse.sum()
            self._candidates = torch.as_tensor(task.candidates, device=self.device)
            self._left = self._candidates[:0]  # of the present pass over them, in random order
            both = torch.full((), MIXING, device=self.device)
            self._mixing = Beta(both, both)

    def drawn(self) -> tuple[Tensor, ...]:
        """Returns mixed images (b, C, H, W), the teacher's probabilities (b, classes) and the weights (b,); or none."""
        if self._teacher is None:
            return ()
        pixels = self.pixels(self._task.augmented(self._next_candidates()))
        number = len(pixels)
        share = self._mixing.sample((number,))
        if "one_partner" in self._quirks:
            partner = torch.randint(number, (1,), device=self.device).expand(number)
        else:
            partner = torch.randperm(number, device=self.device)
        mixed = torch.lerp(pixels[partner], pixels, share[:, None, None, None])
        with torch.no_grad():
            known = self.logits(mixed, self._teacher)
        found = known.argmax(dim=1)
        weights = share * self._weights[found] + (1 - share) * self._weights[found[partner]]
        return mixed, known.softmax(dim=1), weights

    def _next_candidates(self) -> Tensor:
        """Returns the next ids of a random order, as many as a batch has; all once, then in another order."""
        size = max(2, min(self._task.training.batch_size, len(self._candidates)))
        while len(self._left) < size:
            order = torch.randperm(len(self._candidates), device=self.device)
            self._left = torch.cat([self._left, self._candidates[order]])
        found, self._left = self._left[:size], self._left[size:]
        return found

    def loss(self, images: Tensor, labels: Tensor, *drawn: Tensor) -> Tensor:
        """See `aal.training.objective.Objective.loss`."""
        logits = self.logits(self.pixels(images))
        loss = F.cross_entropy(logits if self._prior is None else logits + self._prior, labels)
        if drawn:
            mixed, known, weights = drawn
            divergence = F.kl_div(self.logits(mixed).log_softmax(dim=1), known, reduction="none").mean(dim=1)
            loss = loss + (weights * divergence).mean()
        if self._start:
            loss = (
                loss + self._proximal / 2 * torch.stack([(one - was).square().sum() for one, was in self._start]).sum()
            )
        return loss


def _teacher(teacher: nn.Module, model: nn.Module, *, training: bool) -> nn.Module:
    """Returns a copy of a teacher, on the device of the model and without the weights changing."""
    device = next(model.parameters()).device
    if training:
        return copy.deepcopy(teacher).to(device).train()
    return fuse_batch_norm(teacher).to(device)
