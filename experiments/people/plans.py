"""What is to be run: the same money spent on one, two or three answers an image, with the same seeds."""

import pathlib
from dataclasses import dataclass
from typing import Any

import yaml

from aal.sweep import Planned

FOLDER = pathlib.Path(__file__).parent
TEXTS: dict[str, Any] = yaml.safe_load((FOLDER / "settings.yaml").read_text(encoding="utf-8"))
KINDS: dict[str, dict[str, Any]] = TEXTS["kinds"]
BASELINE = "one"


@dataclass(frozen=True)
class Run(Planned):
    """One run of the plan."""

    kind: str  # a key of KINDS
    seed: int


@dataclass(frozen=True)
class Setup:
    """What a person chose.

    Attributes:
        kinds: some keys of KINDS.
        seeds: how many; they are 0, 1, 2 ...
        data_dir: where the images are.
        answers: file of the recorded answers.
    """

    kinds: tuple[str, ...]
    seeds: int
    data_dir: str
    answers: str


def plan_of(setup: Setup) -> list[Run]:
    """Returns the runs, seed by seed, so that a sweep that is stopped has whole seeds."""
    return [_run(setup, kind, seed) for seed in range(setup.seeds) for kind in setup.kinds]


def _run(setup: Setup, kind: str, seed: int) -> Run:
    config = TEXTS["common"] | KINDS[kind]["config"] | {"data_dir": setup.data_dir, "seed": seed}
    config["annotators"] = TEXTS["common"]["annotators"] | config["annotators"] | {"answers": setup.answers}
    return Run(f"{kind}-seed{seed}", config, kind, seed)
