"""What is to be run for each figure: the paper's settings in `configs/paper`, at their size or a fraction of it."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import yaml

from aal.app.data.splits import share_for_testing
from aal.app.experiments.aal_2021.published import BATCHES, FOLDER, METHODS, SERVERS, STRATEGIES, TIMED_BATCHES
from aal.config.loading import CONFIGS, read_config, resolve
from aal.config.settings import Settings
from aal.sweep import Planned

WORKERS = 10  # paper, section 4.1
COUNTS = ("initial_size", "server_train_threshold", "query_pool_size")  # settings that are scaled
TIMED_ROUNDS = 4  # more do not fit CIFAR-10 with batches of 10,000
OUTSIDE_TEST = 50_000  # images of each of the paper's sets
ANNOTATORS = 20
# Virtual seconds of a VGG-16 of a quarter of the width on one CPU core; fixed, so that a run is the same everywhere.
COSTS = {"per_image_trained": 0.00085, "per_image_scored": 0.0003, "per_selection": 0.05, "per_model_published": 0.1}
# What may be chosen for a figure: methods and batch sizes.
CHOICES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "figure2": (METHODS, BATCHES),
    "figure3": (STRATEGIES, BATCHES),
    "figure4": ((), ()),
    "table1": ((*STRATEGIES, "AAL"), ()),
}
# Kinds of runs in figure 4: mode and bound.
KINDS = {
    ("sync", 1): "synchronous",
    ("async", 1): "asynchronous, max_staleness 1",
    ("async", None): "asynchronous, max_staleness null",
}


@dataclass(frozen=True)
class Scale:
    """How much smaller than the paper; `scales.yaml` explains the attributes."""

    fraction: Fraction
    queries: int
    settings: dict[str, Any]
    differs: str

    def labels(self, count: int) -> int:
        """Returns a label count of the paper at this scale, a whole number for all that the plans use."""
        scaled = count * self.fraction
        assert scaled.denominator == 1, count
        return int(scaled)


ENTRIES = yaml.safe_load((FOLDER / "scales.yaml").read_text(encoding="utf-8"))
SCALES = {name: Scale(**{**entry, "fraction": Fraction(entry["fraction"])}) for name, entry in ENTRIES.items()}


@dataclass(frozen=True)
class Setup:
    """What a person chose."""

    scale: str  # a key of SCALES
    data_type: str
    data_dir: str
    seeds: int  # how many; they are 0, 1, 2 ...
    methods: tuple[str, ...]  # strategies of all workers, or AAL
    batches: tuple[int, ...]  # labels of a round in the paper

    @property
    def size(self) -> Scale:
        """How much smaller than the paper."""
        return SCALES[self.scale]


@dataclass(frozen=True)
class Run(Planned):
    """One run of a plan."""

    method: str  # a strategy of all workers, or AAL
    mode: str  # async or sync
    servers: int
    batch: int  # labels of a round in the paper, whatever the scale
    seed: int
    bound: int | None = 1  # `max_staleness`
    costs: str = ""  # whose times it is about: paper, measured; empty for a run about accuracy

    @property
    def grid(self) -> list[int]:
        """Labels of the trainings that the plan asks for, the initial one first."""
        initial, threshold = self.config["initial_size"], self.config["server_train_threshold"]
        return list(range(initial, initial + self.settings.budget + 1, threshold))


def plan_of(figure: str, setup: Setup, measured: dict[str, float] | None = None) -> list[Run]:
    """Returns the runs of a figure, seed by seed, so that a sweep that is stopped has whole seeds.

    Those of figure 2 are among those of figure 3. Figure 4 needs what work costs on this machine, as `measured`.
    """
    seeds, methods = range(setup.seeds), setup.methods
    if figure == "table1":
        return [several(setup, method, servers, seed) for seed, method, servers in product(seeds, methods, SERVERS)]
    if figure == "figure4":
        sources = (("paper", None), ("measured", measured))
        return [timed(setup, *costs, *kind, batch) for costs, kind, batch in product(sources, KINDS, TIMED_BATCHES)]
    modes = ("async", "sync") if figure == "figure3" else ("async",)
    kinds = product(seeds, setup.batches, methods, modes)
    return [single(setup, method, mode, batch, seed) for seed, batch, method, mode in kinds]


def single(setup: Setup, method: str, mode: str, batch: int, seed: int) -> Run:
    """Returns a run of the study with one server (paper, figures 2 and 3)."""
    config = _scaled(setup, f"batch{batch}", method, seed) | {"mode": mode}
    threshold, rounds = config["server_train_threshold"], config["worker_query_num"]
    config |= {"query_batch": threshold // WORKERS, **_pace(setup, config, threshold, rounds)}
    return Run(f"{method}-{mode}-batch{batch}-seed{seed}", config, method, mode, 1, batch, seed)


def several(setup: Setup, method: str, servers: int, seed: int) -> Run:
    """Returns a run of the study with several servers (paper, table 1), at a pace that suits most of them."""
    paper = paper_settings(setup.data_type, f"servers{servers}")
    bought = setup.size.labels(WORKERS * paper["worker_query_num"] * paper["query_batch"])
    config = _scaled(setup, f"servers{servers}", method, seed)
    config |= {"worker_query_num": setup.size.queries, "query_batch": bought // (WORKERS * setup.size.queries)}
    shortest = config["query_pool_size"] // 2
    config |= _pace(setup, config, shortest, bought // shortest)
    batch = paper["server_train_threshold"]
    return Run(f"{method}-servers{servers}-seed{seed}", config, method, "async", servers, batch, seed)


def timed(setup: Setup, costs: str, times: dict[str, float] | None, mode: str, bound: int | None, batch: int) -> Run:
    """Returns a run about times alone (paper, figure 4), with the `paper`'s or the `measured` costs, then `times`."""
    data_type = "cifar-10" if setup.data_type == "digits" else setup.data_type  # digits are too few for these batches
    config = paper_settings(data_type, f"batch{BATCHES[0]}") | {"assignment_type": "DA", "query_strategy": "entropy"}
    if times is not None:
        config = _resized(config, setup)
    config |= {
        **{"data_dir": setup.data_dir, "compute": "none", "mode": mode, "max_staleness": bound},
        **{"worker_query_num": TIMED_ROUNDS, "query_batch": batch // WORKERS, "server_train_threshold": batch},
        "examples": round(OUTSIDE_TEST / (1 - share_for_testing(data_type))),  # as the paper has
        "costs": times or costs,
    }
    kind = mode if mode == "sync" else "async-free" if bound is None else f"async-bound{bound}"
    return Run(f"times-{costs}-{kind}-batch{batch}", config, "entropy", mode, 1, batch, 0, bound, costs)


def measuring(setup: Setup) -> Settings:
    """Returns the settings of a run that measures what work costs on this machine; it computes nothing else."""
    config = single(setup, "entropy", "async", BATCHES[0], seed=0).config
    return resolve(config | {"compute": "none", "costs": "measured"}, "costs")


def paper_settings(data_type: str, name: str) -> dict[str, Any]:
    """Returns the paper's own settings; those of CIFAR-10 for the digits, which it does not have."""
    short = "cifar10" if data_type == "digits" else data_type.replace("-", "")
    return read_config(CONFIGS / "paper" / f"{short}-{name}.yaml")


def _resized(config: dict[str, Any], setup: Setup) -> dict[str, Any]:
    """Returns settings with the network, the training and the devices of the scale."""
    if setup.scale != "paper":
        config.pop("training", None)
    return config | setup.size.settings


def _scaled(setup: Setup, name: str, method: str, seed: int) -> dict[str, Any]:
    config = _resized(paper_settings(setup.data_type, name), setup)
    strategy = {"assignment_type": "RA"} if method == "AAL" else {"assignment_type": "DA", "query_strategy": method}
    counts = {key: setup.size.labels(config[key]) for key in COUNTS if key in config}
    chosen = {"data_type": setup.data_type, "data_dir": setup.data_dir, "seed": seed}
    return config | counts | chosen | strategy


def _pace(setup: Setup, config: dict[str, Any], threshold: int, rounds: int) -> dict[str, Any]:
    """What work and labels cost: below the paper's scale, a round is labelled while the middle training goes on."""
    if setup.scale == "paper":
        return {}
    epochs = resolve({"data_type": "folder", **setup.size.settings}, setup.scale).training.epochs
    middle = config["initial_size"] + threshold * rounds / 2
    seconds = middle * epochs * COSTS["per_image_trained"] * ANNOTATORS / threshold
    return {"costs": COSTS, "annotators": {"number": ANNOTATORS, "seconds_per_label": round(seconds, 2)}}
