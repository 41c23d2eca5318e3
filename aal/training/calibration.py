"""What training and scoring cost on this machine, for a simulated run that is to resemble a real one."""

import functools
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from aal.config.cores import free_cores_now
from aal.config.settings import CostSettings, Settings
from aal.coordination.messages import Computing
from aal.storage.model_files import load_model, model_payload, save_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import keep_freed_memory, resolve_device
from aal.training.images import ImageBank
from aal.training.inference import predict
from aal.training.networks import architecture_of, restore_model
from aal.training.process import set_up_simulated, threads_for
from aal.training.trainer import Trainer, TrainingTask, weights_of

REPEATS = 3
STEPS = 8  # of a short training; a longer one has three times as many
LEAST_S = 0.5  # of each of the longer ones: where steps are fast, less would drown in jitter
MOST_MORE = 100  # times as many steps
SCORED = 1000


def calibrate(
    settings: Settings, images: np.ndarray, labels: np.ndarray, ids: np.ndarray, fit: Trainer
) -> CostSettings:
    """Measures for some seconds, with the devices and threads of the settings, or a thread for each core that is free.

    Roles that share cores slow one another down in a real run; that is not in these figures. The first of `models`
    stands for all of them, and a validation costs what a selection does.

    Args:
        settings: of the run.
        images: (N, H, W, C) uint8, the whole set.
        labels: (N,) of these.
        ids: (n,) of some that may be trained on.
        fit: the trainer.

    Returns:
        Medians of repeated measurements; a selection costs the reading of a model, a training also its writing.
    """
    device = resolve_device(settings.devices.servers[0])
    bank = ImageBank(images, device)
    size = {"classes": int(labels.max()) + 1, "channels": images.shape[3], "image_size": images.shape[1]}
    architecture = architecture_of(settings, settings.networks[0], **size)
    model = architecture.build(seed=0)
    alone = Computing(trainings=1, selections=0, free_cores=free_cores_now())
    torch.set_num_threads(threads_for("server", settings, takes_turns=False, computing=alone))
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # as in a real run, which is to be resembled
    trained = _per_image_trained(settings, bank, images, labels, ids, model, fit)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.pt"
        payload = model_payload(
            settings,
            state_dict={name: value.cpu() for name, value in weights_of(model).items()},
            architecture=architecture.as_dict(),
            normalisation=_unchanged(images),
            class_names=[],
            images="",
            labels=0,
            epoch=0,
        )
        written = _median(lambda: save_model(path, payload))
        torch.set_num_threads(threads_for("worker", settings, takes_turns=False))
        trusted = [one.model for one in settings.networks]
        read = _median(lambda: fuse_batch_norm(restore_model(load_model(path), path, trusted).to(device), inplace=True))
    scored = _per_image_scored(bank, images, model)
    set_up_simulated(settings)
    return CostSettings(
        per_image_trained=trained,
        per_image_scored=scored,
        per_selection=read,
        per_model_published=written,
        relative_std=settings.costs.relative_std,
        client_factors=settings.costs.client_factors,
    )


def _median(act: Callable[[], object]) -> float:
    """Seconds of an action; the first time, which warms up, does not count."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _unchanged(images: np.ndarray) -> dict[str, list[float]]:
    return {"mean": [0.0] * images.shape[3], "std": [1.0] * images.shape[3]}


def _per_image_trained(
    settings: Settings,
    bank: ImageBank,
    images: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    model: nn.Module,
    fit: Trainer,
) -> float:
    """From the difference between a short and a longer training, so that what each training costs once drops out."""
    training = settings.training.model_copy(update={"epochs": 1})

    def train(steps: int) -> None:
        some = np.resize(ids, steps * training.batch_size)
        fit(model, TrainingTask(bank, some, labels[some], training, _unchanged(images), seed=0))

    steps, long = STEPS, _median(functools.partial(train, 3 * STEPS))
    if long < LEAST_S:
        steps = math.ceil(steps * min(MOST_MORE, LEAST_S / long))
        long = _median(functools.partial(train, 3 * steps))
    short = _median(functools.partial(train, steps))
    return max(0.0, (long - short) / (2 * steps * training.batch_size))


def _per_image_scored(bank: ImageBank, images: np.ndarray, model: nn.Module) -> float:
    some, network = np.arange(SCORED) % len(images), fuse_batch_norm(model)
    return _median(lambda: predict(network, bank, some, normalisation=_unchanged(images), precision="auto")) / SCORED
