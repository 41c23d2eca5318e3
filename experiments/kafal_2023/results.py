"""What the runs of the study of federated active learning found."""

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from aal.app.experiments.kafal_2023.plans import Run
from aal.reporting.curves import Floats, mean_by_labels
from aal.reporting.metrics import summary_of
from aal.reporting.record import column, read


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run: labels (n,) of its cycles, accuracy (n,) of the global model at their ends, and its machine."""

    run: Run
    labels: Floats
    accuracy: Floats
    hardware: str


def read_results(plan: Iterable[Run], runs: pathlib.Path) -> list[Result]:
    """Reads the finished runs of a plan."""
    found = []
    for run in plan:
        record = read(runs / run.name)
        tested = [point for point in summary_of(record)["curve"] if point["test_accuracy"] is not None]
        curve = mean_by_labels(column(tested, "labels"), column(tested, "test_accuracy"))
        found.append(Result(run, *curve, record.meta.get("hardware", "unknown")))
    return found


def of_kind(results: Iterable[Result], method: str, update: str, spread: str) -> list[Result]:
    """Returns the runs of a kind, in order of seed."""
    kind = (method, update, spread)
    return [one for one in results if (one.run.method, one.run.update, one.run.spread) == kind]


def means(results: Iterable[Result], method: str, update: str, spread: str) -> Floats:
    """Returns the mean accuracy of the curve of each seed (seeds,), from 0 to 1; none where it was not run."""
    return np.array([one.accuracy.mean() for one in of_kind(results, method, update, spread)])
