"""What is to be run: every strategy in every setting, asynchronous and synchronous, with the same seeds."""

import pathlib
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from aal.sweep import Planned

FOLDER = pathlib.Path(__file__).parent
TEXTS: dict[str, Any] = yaml.safe_load((FOLDER / "settings.yaml").read_text(encoding="utf-8"))
SETTINGS: dict[str, dict[str, Any]] = TEXTS["settings"]
METHODS: tuple[str, ...] = tuple(TEXTS["methods"])
MODES = ("async", "sync")
BASELINE = "random"
NEEDS_FEATURES = tuple(name for name in SETTINGS if name.startswith("frozen"))


@dataclass(frozen=True)
class Run(Planned):
    """One run of the plan."""

    setting: str  # a key of SETTINGS
    method: str  # a strategy
    mode: str  # one of MODES
    seed: int

    @property
    def span(self) -> tuple[int, int]:
        """Labels of the first and of the last training."""
        initial = self.config["initial_size"]
        return initial, initial + self.settings.budget


@dataclass(frozen=True)
class Setup:
    """What a person chose.

    Attributes:
        settings: keys of SETTINGS.
        methods: strategies, the baseline first.
        modes: some of MODES.
        seeds: how many; they are 0, 1, 2 ...
        data_dir: where the images are.
        features: of each setting that needs some: an .npy file or what computes them.
    """

    settings: tuple[str, ...]
    methods: tuple[str, ...]
    modes: tuple[str, ...]
    seeds: int
    data_dir: str
    features: dict[str, str]


def plan_of(setup: Setup) -> list[Run]:
    """Returns the runs, setting by setting and seed by seed, so that a sweep that is stopped has whole seeds."""
    kinds = product(setup.settings, range(setup.seeds), setup.modes, setup.methods)
    return [_run(setup, *kind) for kind in kinds]


def _run(setup: Setup, setting: str, seed: int, mode: str, method: str) -> Run:
    chosen = {"data_dir": setup.data_dir, "mode": mode, "seed": seed, "query_strategy": method}
    features = {"features": setup.features[setting]} if setting in NEEDS_FEATURES else {}
    config = TEXTS["common"] | SETTINGS[setting]["config"] | chosen | features
    return Run(f"{setting}-{method}-{mode}-seed{seed}", config, setting, method, mode, seed)
