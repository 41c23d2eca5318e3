"""Clients whose speeds differ tenfold, and who drop out: in rounds and without rounds, on the virtual clock."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.app.experiments.aal_2021.page import mean_and_deviation
from aal.app.experiments.kafal_2023.plans import PUBLISHED, SCALES, Setup, run_of
from aal.reporting.curves import Floats
from aal.reporting.metrics import summary_of
from aal.reporting.record import column, read
from aal.reporting.tables import markdown_table
from aal.reporting.units import duration, percent
from aal.sweep import Planned

SLOWEST = 10.0  # times as long as the fastest client, the others evenly between them on a logarithmic scale
DROPOUT = 0.1  # of the local trainings
BUFFER = 0.4  # of the clients, whose local models make a version where there are no rounds
PACES = {"rounds": "in rounds", "asynchronous": "without rounds"}

ABOUT = """\
The same federation (`random`, KCFU, alpha {alpha}) where the slowest client takes {slowest:.0f} times as long as the
fastest, the others evenly between, and a tenth of the local trainings is lost because its client drops out. In rounds
the server waits for all who take part; without rounds it makes a version of every {buffer} local models, weighted by
their staleness (FedBuff); all clients take part, at a constant learning rate, since there is no cycle in which to
count epochs for the milestones. Both are tested after about as many local models, those of a round. A client has
{people} annotators of its own, who take {label} virtual seconds a label; an image of a training takes {image} on the
fastest client.
"""


@dataclass(frozen=True)
class SlowRun(Planned):
    """One run of the comparison."""

    pace: str
    seed: int


@dataclass(frozen=True, eq=False)
class SlowResult:
    """A finished run: when (n,) each tested version came, in virtual seconds, and its accuracy (n,); its summary."""

    run: SlowRun
    seconds: Floats
    accuracy: Floats
    summary: dict[str, Any]


def slow_plan(setup: Setup) -> list[SlowRun]:
    """Returns the runs, seed by seed."""
    return [_run(setup, pace, seed) for seed in range(setup.seeds) for pace in PACES]


def _run(setup: Setup, pace: str, seed: int) -> SlowRun:
    base = run_of(setup, "random", "kcfu", PUBLISHED, seed).config
    clients = base["worker_num"]
    federated = {**base["federated"], "dropout": DROPOUT, "test_every": 1}
    training = dict(base["training"])
    if pace == "asynchronous":
        federated |= {"fraction": 1.0, "asynchronous": {"buffer": max(1, round(BUFFER * clients))}}
        federated["test_every"] = 2  # of so many as in a round
        training |= {"schedule": "constant", "milestones": None}
        training = {key: value for key, value in training.items() if value is not None}
    config = {
        **base,
        "training": training,
        "federated": federated,
        "annotators": {"number": 2, "seconds_per_label": 1.0},
        "costs": {"per_image_trained": 0.001, "client_factors": np.geomspace(1, SLOWEST, clients).round(2).tolist()},
    }
    return SlowRun(f"slow-{pace}-seed{seed}", config, pace, seed)


def slow_results(plan: Sequence[SlowRun], runs: pathlib.Path) -> list[SlowResult]:
    """Reads the finished runs."""
    found = []
    for run in plan:
        summary = summary_of(read(runs / run.name))
        tested = [point for point in summary["curve"] if point["test_accuracy"] is not None]
        found.append(SlowResult(run, column(tested, "seconds"), column(tested, "test_accuracy"), summary))
    return found


def time_to(accuracy: float, result: SlowResult) -> float:
    """Returns the virtual seconds after which a run was first as accurate; NaN where it never was."""
    reached = np.flatnonzero(result.accuracy >= accuracy)
    return float(result.seconds[reached[0]]) if len(reached) else np.nan


def slow_section(setup: Setup, results: Sequence[SlowResult]) -> str:
    """Returns the section of the page: waits, time to an accuracy, and the end, in rounds and without."""
    if not results:
        return ""
    best = [max(one.accuracy.max() for one in results if one.run.pace == pace) for pace in PACES]
    goals = [round(share * min(best), 2) for share in (0.8, 0.95)]
    rows = [_row(name, [one for one in results if one.run.pace == pace], goals) for pace, name in PACES.items()]
    times = [f"time to {percent(one)}" for one in goals]
    head = ("", "annotators waited", "labels a second", "took", "accuracy at the end, %", *times)
    config = results[0].run.config
    about = ABOUT.format(
        alpha=PUBLISHED,
        slowest=SLOWEST,
        buffer=max(1, round(BUFFER * SCALES[setup.scale].settings["worker_num"])),
        people=config["annotators"]["number"],
        label=config["annotators"]["seconds_per_label"],
        image=config["costs"]["per_image_trained"],
    )
    return "\n".join(["## Slow clients\n", about, markdown_table(head, rows)])


def _row(name: str, results: Sequence[SlowResult], goals: Sequence[float]) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return float(np.mean([one.summary[key] for one in results]))

    times = [[time_to(goal, one) for one in results] for goal in goals]
    return (
        name,
        percent(mean("annotators_waited")),
        f"{mean('labels_per_s'):.2f}",
        duration(mean("wall_s"), virtual=True),
        mean_and_deviation(np.array([one.accuracy[-1] for one in results])),
        *("not by all" if np.isnan(one).any() else duration(float(np.mean(one)), virtual=True) for one in times),
    )
