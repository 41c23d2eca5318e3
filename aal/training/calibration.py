"""What training and scoring cost on this machine, for a simulated run that is to resemble a real one."""

import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from aal.config.settings import CostSettings, Settings
from aal.coordination.messages import Computing
from aal.storage.model_files import load_model, save_model
from aal.training.acceleration import folded
from aal.training.devices import keep_freed_memory, resolve_device, use_threads
from aal.training.fitting import learn, predict
from aal.training.images import ImageBank

REPEATS = 3
STEPS = 8  # of a short training; a longer one has three times as many
SCORED = 1000


def calibrate(
    settings: Settings, images: np.ndarray, labels: np.ndarray, ids: np.ndarray, build_model: Callable[..., Any]
) -> CostSettings:
    """Measures for some seconds, with the devices and threads of the settings, on an otherwise idle machine.

    Roles that share cores slow one another down in a real run; that is not in these figures. The first of `models`
    stands for all of them, and a validation costs what a selection does.

    Args:
        settings: of the run.
        images: (N, H, W, C) uint8, the whole set.
        labels: (N,) of these.
        ids: (n,) of some that may be trained on.
        build_model: `models.build_model`.

    Returns:
        Medians of repeated measurements; a selection costs the reading of a model, a training also its writing.
    """
    device = resolve_device(settings.devices.servers[0], 0)
    local = settings.model_copy(update={"engine": "local"})  # with the threads that a role alone at work would have
    bank = ImageBank(images, device)
    build = {"classes": int(labels.max()) + 1, "channels": images.shape[3], "image_size": images.shape[1]}
    name = settings.models[0]
    model = build_model(name, **build, width=settings.width, seed=0)
    use_threads("server", local, Computing(trainings=1, selections=0))
    keep_freed_memory()
    trained = _per_image_trained(settings, bank, images, labels, ids, model)
    with tempfile.TemporaryDirectory() as folder:
        written = _median(lambda: save_model(pathlib.Path(folder) / "model.pt", _payload(settings, images, model)))
        use_threads("worker", local)
        read = _median(lambda: build_model(name, **build, width=settings.width, seed=0).to(device))
        read += _median(lambda: load_model(pathlib.Path(folder) / "model.pt"))
    scored = _per_image_scored(bank, images, model)
    use_threads("server", settings)
    return CostSettings(
        per_image_trained=trained,
        per_image_scored=scored,
        per_selection=read,
        per_model_published=written,
        relative_std=settings.costs.relative_std,
    )


def _median(act: Callable[[], object]) -> float:
    """Seconds of an action; the first time, which warms up, does not count."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _plain(images: np.ndarray) -> dict[str, list[float]]:
    return {"mean": [0.0] * images.shape[3], "std": [1.0] * images.shape[3]}


def _payload(settings: Settings, images: np.ndarray, model: Any) -> dict[str, Any]:
    """What a model file of the run would hold."""
    about = {"data_type": settings.data_type, "image_size": None, "test_share": None, "seed": 0, "images": ""}
    return {
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "architecture": model.architecture,
        "normalisation": _plain(images),
        "data": about,
        **{"class_names": [], "labels": 0, "epoch": 0},
    }


def _per_image_trained(
    settings: Settings, bank: ImageBank, images: np.ndarray, labels: np.ndarray, ids: np.ndarray, model: Any
) -> float:
    """From the difference between a short and a longer training, so that what each training costs once drops out."""
    training = settings.training.model_copy(update={"epochs": 1})
    nobody = np.array([], np.int64)

    def train(steps: int) -> None:
        some = np.resize(ids, steps * training.batch_size)
        learn(model, bank, some, labels[some], nobody, nobody, training=training, normalisation=_plain(images), seed=0)

    short, long = (_median(functools.partial(train, steps)) for steps in (STEPS, 3 * STEPS))
    return max(0.0, (long - short) / (2 * STEPS * training.batch_size))


def _per_image_scored(bank: ImageBank, images: np.ndarray, model: Any) -> float:
    some, network = np.arange(SCORED) % len(images), folded(model)
    return _median(lambda: predict(network, bank, some, normalisation=_plain(images), precision="auto")) / SCORED
