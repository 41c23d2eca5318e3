"""The faults that readers of this field look for first, looked for in the folders of the runs."""

import pathlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from aal.app.data import Split, load_split
from aal.app.experiments.aal_2021.page import Claim, count
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import Verdict
from aal.storage.model_files import load_model
from aal.storage.run_reader import RunReader


@dataclass(frozen=True)
class Check:
    """A promise, and the runs that break it.

    Attributes:
        promise: in words.
        broken: names of runs, or claims; empty when it is kept.
        looked_at: how many runs, models, seeds or claims were looked at, in words.
        kept: what to say when it is kept.
    """

    promise: str
    broken: list[str]
    looked_at: str
    kept: str = "kept"


def check(results: list[Result]) -> list[Check]:
    """Looks for leaks and unequal starts in all runs of a figure."""
    runs, seeds = f"{len(results)} runs", count(len({result.run.seed for result in results}), "seed")
    models = f"{sum(len(result.summary['curve']) for result in results)} models"
    splits = {result.run.name: load_split(result.folder / "split.npz") for result in results}

    def start(result: Result) -> Hashable:
        split = splits[result.run.name]
        return split.test.tobytes(), split.validation.tobytes(), split.initial.tobytes()

    def names(is_broken: Callable[[Result], bool]) -> list[str]:
        return [result.run.name for result in results if is_broken(result)]

    return [
        Check(
            "No test image was validated on, labelled at the start or offered; nor was a validation image; whatever "
            "was offered is of a worker's shard",
            names(lambda result: _leaks(splits[result.run.name], result.folder)),
            runs,
        ),
        Check(
            "All runs of a seed have the same test, validation and initial images",
            _unequal(results, start),
            seeds,
        ),
        Check(
            "The initial models of all runs of a seed have the same test accuracy, to the last digit",
            _unequal(results, lambda result: result.summary["curve"][0]["test_accuracy"]),
            seeds,
        ),
        Check(
            "Every run bought as many labels as were planned, and its last model learned from all of them",
            names(_fell_short),
            runs,
        ),
        Check(
            "The epoch that was kept is the best on the validation images, the last of equals",
            names(lambda result: not all(map(_keeps_the_best, _models(result.folder)))),
            models,
        ),
    ]


def concluded(results: list[Result], claims: list[Claim]) -> Check:
    """Looks for conclusions about accuracy from a single seed."""
    seeds: dict[Hashable, set[int]] = {}
    for run in (result.run for result in results):
        seeds.setdefault((run.method, run.mode, run.servers, run.batch), set()).add(run.seed)
    least = min(map(len, seeds.values()))
    decided = [claim.text for claim in claims if claim.verdict in (Verdict.HOLDS, Verdict.FAILS)]
    return Check(
        "Every conclusion about accuracy is from at least two seeds",
        decided if least < 2 else [],
        f"{len(claims)} claims, {count(least, 'seed')}",
        "kept" if least > 1 else "one seed: nothing is concluded",
    )


def _leaks(split: Split, folder: pathlib.Path) -> bool:
    """Whether an id is in two parts, or one was offered that is in no worker's shard."""
    with RunReader(folder) as run:
        offered = run.columns("SELECT item FROM queries")["item"]
    shards = np.concatenate(split.shards)
    parts = np.concatenate([split.test, split.validation, split.initial, shards])
    return len(np.unique(parts)) < len(parts) or not np.isin(offered, shards).all()


def _models(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of the models that were published; others may lie there, of a training that was cut off."""
    with RunReader(folder) as run:
        return [folder / model["path"] for model in run.models()]


def _unequal(results: Iterable[Result], of: Callable[[Result], Hashable]) -> list[str]:
    """Returns the runs that differ from the first of their seed."""
    first: dict[int, Hashable] = {}
    return [result.run.name for result in results if first.setdefault(result.run.seed, of(result)) != of(result)]


def _fell_short(result: Result) -> bool:
    labels, last = result.summary["labels"], result.summary["curve"][-1]
    return labels["bought"] != result.run.settings.budget or last["labels"] != labels["total"]


def _keeps_the_best(path: pathlib.Path) -> bool:
    payload = load_model(path)
    last = {entry["val_accuracy"]: entry["epoch"] for entry in payload["history"] if entry["val_accuracy"] is not None}
    return bool(last) and payload["epoch"] == last[max(last)]
