"""What is to be run for federated active learning, at the published size or a stated part of it."""

import pathlib
from dataclasses import dataclass
from itertools import product
from typing import Any

from aal.app.experiments.scales import SUBSET, read_scales
from aal.sweep import Planned

FOLDER = pathlib.Path(__file__).parent
METHODS = ("ksas", "random", "entropy", "margin", "coreset", "badge", "logo")
COMPARED = ("ksas", "random", "entropy")  # where the clients are less different than as published
UPDATES = {"kcfu": True, "fedavg": False}  # whether balanced and compensated
SPREADS: dict[str, dict[str, Any]] = {
    "0.1": {"partition": "dirichlet", "alpha": 0.1},
    "1": {"partition": "dirichlet", "alpha": 1.0},
    "iid": {"partition": "iid"},
}
PUBLISHED = "0.1"


@dataclass(frozen=True)
class Scale:
    """How large the runs are; `scales.yaml` explains the attributes."""

    images: dict[str, int] | None
    settings: dict[str, Any]
    differs: str


SCALES = read_scales(FOLDER, Scale)


@dataclass(frozen=True)
class Setup:
    """What a person chose.

    Attributes:
        scale: one of SCALES.
        data_dir: where the images are.
        seeds: runs of each kind.
        methods: strategies.
        spreads: how different the clients are, of SPREADS.
        chosen_by: which model the baselines choose with.
        slow_clients: whether clients of different speeds are compared, too, in rounds and without.
    """

    scale: str
    data_dir: str
    seeds: int
    methods: tuple[str, ...]
    spreads: tuple[str, ...]
    chosen_by: str
    slow_clients: bool = False

    @property
    def data_type(self) -> str:
        """The image set."""
        return "digits" if self.scale == "tiny" else "cifar-10"


@dataclass(frozen=True)
class Run(Planned):
    """One run of a plan."""

    method: str
    update: str
    spread: str
    seed: int


def methods_of(setup: Setup, spread: str) -> tuple[str, ...]:
    """Returns the methods that are run where clients are so different."""
    return tuple(method for method in setup.methods if spread == PUBLISHED or method in COMPARED)


def plan_of(setup: Setup) -> list[Run]:
    """Returns the runs, seed by seed, so that a sweep that is stopped has whole seeds."""
    kinds = product(range(setup.seeds), setup.spreads, UPDATES)
    return [
        run_of(setup, method, update, spread, seed)
        for seed, spread, update in kinds
        for method in methods_of(setup, spread)
    ]


def run_of(setup: Setup, method: str, update: str, spread: str, seed: int) -> Run:
    """Returns one run."""
    scale, is_kcfu = SCALES[setup.scale], UPDATES[update]
    data: dict[str, Any] = {"data_type": setup.data_type}
    if scale.images is not None:
        data = {"data_type": SUBSET, "data_options": {"of": setup.data_type, **scale.images}}
    own = scale.settings
    # As published: plain momentum, decay of all parameters, a rate in steps.
    recipe = {"nesterov": False, "weight_decay": 0.0005, "decay_all": True, "schedule": "multi_step"}
    federated = {**SPREADS[spread], "compensation": is_kcfu, "keep_optimizer": True, "chosen_by": setup.chosen_by}
    config = {
        **{**data, "data_dir": setup.data_dir, "engine": "simulated", "mode": "federated", "seed": seed, **own},
        **{"val_size": 0, "server_train_threshold": own["worker_num"] * own["query_batch"], "max_staleness": None},
        **{"assignment_type": "DA", "query_strategy": method, "models": "resnet8"},
        **{"trainer": "train_local", "trainer_options": {"balanced": is_kcfu}},
        "training": {"validate_after": 0, **recipe, **own["training"]},
        "federated": {**federated, **own["federated"]},
    }
    name = f"{method}-{update}-{spread}-{setup.chosen_by}-seed{seed}"
    return Run(name, config, method, update, spread, seed)
