"""How many labels a strategy needs to reach what random sampling reaches with all of its labels."""

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from aal.app.experiments.aal_2021.statistics import Interval, interval
from aal.app.experiments.labels_saved.plans import BASELINE, Run, Setup
from aal.reporting.curves import Floats, mean_by_labels
from aal.reporting.metrics import summary_of
from aal.reporting.record import column, read


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run: its plan, its learning curve, who waited, and where it was made.

    Attributes:
        run: the plan of it.
        labels: (n,) of the models, ascending.
        accuracy: (n,) of these on the test set.
        summary: `summary.json`.
        meta: what the run noted of its origin.
    """

    run: Run
    labels: Floats
    accuracy: Floats
    summary: dict[str, object]
    meta: dict[str, str]


@dataclass(frozen=True)
class Saving:
    """What a strategy needs in a setting, as a share of all labels.

    Attributes:
        needed: mean over the seeds with its interval; a seed that does not get as far counts as 1.
        reached: how many seeds got as far.
        final: accuracy with all labels, mean over the seeds.
    """

    needed: Interval
    reached: int
    final: float


def read_results(plan: Iterable[Run], runs: pathlib.Path) -> list[Result]:
    """Reads the finished runs of a plan from the folder of their folders; raises UserError where one is unreadable."""
    results = []
    for run in plan:
        record = read(runs / run.name)
        summary = summary_of(record)
        labels, accuracy = (column(summary["curve"], key) for key in ("labels", "test_accuracy"))
        results.append(Result(run, *mean_by_labels(labels, accuracy), summary, record.meta))
    return results


def rising(accuracy: Floats) -> Floats:
    """Returns the curve (n,) that never falls and is nearest to an accuracy (n,) in the mean of squares.

    The first point at which a noisy curve passes a mark comes early by luck; this one takes luck both ways.
    """
    return np.asarray(isotonic_regression(accuracy).x)


def share_needed(labels: Floats, accuracy: Floats, target: float) -> float | None:
    """Returns the labels at which a curve reaches an accuracy, as a share of its last label count; None if it does not.

    Args:
        labels: (n,) ascending.
        accuracy: (n,) of the models; smoothed by `rising`, and straight between two points.
        target: to be reached.
    """
    curve = rising(accuracy)
    if curve[-1] < target:
        return None
    place = int(np.argmax(curve >= target))
    if place == 0:
        return float(labels[0] / labels[-1])
    part = (target - curve[place - 1]) / (curve[place] - curve[place - 1])
    return float((labels[place - 1] + part * (labels[place] - labels[place - 1])) / labels[-1])


def savings_of(setup: Setup, results: list[Result], setting: str, mode: str) -> dict[str, Saving]:
    """Returns what each strategy needs, compared seed by seed with random sampling in the same setting and mode."""
    found = {(result.run.method, result.run.seed): result for result in results if _is_of(result, setting, mode)}
    savings = {}
    for method in setup.methods:
        runs = [found[method, seed] for seed in range(setup.seeds)]
        targets = [rising(found[BASELINE, seed].accuracy)[-1] for seed in range(setup.seeds)]
        needed = [share_needed(run.labels, run.accuracy, mark) for run, mark in zip(runs, targets, strict=True)]
        shares = np.array([1.0 if share is None else share for share in needed])
        final = float(np.mean([run.accuracy[-1] for run in runs]))
        savings[method] = Saving(interval(shares), sum(share is not None for share in needed), final)
    return savings


def _is_of(result: Result, setting: str, mode: str) -> bool:
    return result.run.setting == setting and result.run.mode == mode
