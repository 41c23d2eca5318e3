"""What is to be run for the study of several target models, at the paper's size or a stated part of it."""

import pathlib
from dataclasses import dataclass
from itertools import product
from typing import Any

from aal.app.experiments.scales import SUBSET, read_scales
from aal.config.registry import STRATEGIES
from aal.sweep import Planned

FOLDER = pathlib.Path(__file__).parent
METHODS = ("random", "entropy", "margin", "least_confidence", "coreset", "cal", "diam")  # those of the paper
DATA_TYPES = ("mnist", "kmnist", "cifar-10", "digits")
ANNOTATORS = 10
COSTS = {"per_image_trained": 0.0004, "per_image_scored": 0.00003, "per_selection": 0.05, "per_model_published": 0.1}


@dataclass(frozen=True)
class Scale:
    """How large the runs are; `scales.yaml` explains the attributes."""

    images: dict[str, int] | None
    initial: int
    batch: int
    rounds: int
    numbers: list[int]
    targets: list[str]
    settings: dict[str, Any]
    differs: str


SCALES = read_scales(FOLDER, Scale)


@dataclass(frozen=True)
class Setup:
    """What a person chose."""

    scale: str
    data_type: str
    data_dir: str
    seeds: int
    methods: tuple[str, ...]
    numbers: tuple[int, ...]  # of targets
    asynchronous: bool  # also run DIAM asynchronously


@dataclass(frozen=True)
class Run(Planned):
    """One run of a plan."""

    method: str
    mode: str
    number: int  # of targets
    seed: int


def methods() -> tuple[str, ...]:
    """Returns the methods of the paper that this program has."""
    return tuple(method for method in METHODS if method in STRATEGIES.entries)


def plan_of(setup: Setup) -> list[Run]:
    """Returns the runs, seed by seed, so that a sweep that is stopped has whole seeds."""
    found = []
    for seed, number in product(range(setup.seeds), setup.numbers):
        found += [_run(setup, method, "sync", number, seed) for method in setup.methods]
        if setup.asynchronous and "diam" in setup.methods:
            found.append(_run(setup, "diam", "async", number, seed))
    return found


def _run(setup: Setup, method: str, mode: str, number: int, seed: int) -> Run:
    scale = SCALES[setup.scale]
    if scale.images is None:
        data: dict[str, Any] = {"data_type": setup.data_type}
    else:
        data = {"data_type": SUBSET, "data_options": {"of": setup.data_type, **scale.images}}
    workers = {"worker_num": 2, "query_batch": scale.batch // 2} if mode == "async" else {"query_batch": scale.batch}
    settings = {**scale.settings, "training": {**scale.settings["training"], **_augmentation(setup.data_type)}}
    middle = scale.initial + scale.batch * scale.rounds / 2
    per_training = middle * settings["training"]["epochs"] * COSTS["per_image_trained"]
    seconds = number * per_training * ANNOTATORS / scale.batch  # a round is labelled while all targets are trained once
    config = {
        **{**data, "data_dir": setup.data_dir, "engine": "simulated", "mode": mode, "seed": seed, **settings},
        **{"targets": [f"mobilenet_v3:{name}" for name in scale.targets[:number]]},
        **{"initial_size": scale.initial, "val_size": 0, "worker_num": 1, **workers, "worker_query_num": scale.rounds},
        **{"server_train_threshold": scale.batch, "assignment_type": "DA", "query_strategy": method},
        **{"costs": COSTS, "annotators": {"number": ANNOTATORS, "seconds_per_label": round(seconds, 2)}},
    }
    return Run(f"{method}-{mode}-targets{number}-seed{seed}", config, method, mode, number, seed)


def _augmentation(data_type: str) -> dict[str, Any]:
    padding = {"digits": 1, "mnist": 2, "kmnist": 2}.get(data_type, 4)
    return {"crop_padding": padding, "flip": data_type == "cifar-10"}
