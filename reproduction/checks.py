"""The faults that readers of this field look for first, looked for in the folders of the runs."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from aal.publish import load_model
from data import Split, load_split
from reproduction.results import Result


@dataclass(frozen=True)
class Check:
    """A promise, and the runs that break it.

    Attributes:
        promise: in words.
        broken: names of runs, empty when it is kept.
        looked_at: how many runs, models or seeds were looked at, in words.
    """

    promise: str
    broken: list[str]
    looked_at: str


def check(results: list[Result]) -> list[Check]:
    """Looks for leaks and unequal starts in all runs of a figure."""
    runs, seeds = f"{len(results)} runs", f"{len({result.run.seed for result in results})} seeds"
    models = f"{sum(len(result.summary['curve']) for result in results)} models"
    splits = {result.run.name: load_split(result.folder / "split.npz") for result in results}
    return [
        Check(
            "No test image was validated on, labelled at the start or offered; nor was a validation image",
            [result.run.name for result in results if _leaks(splits[result.run.name], result.folder)],
            runs,
        ),
        Check(
            "All runs of a seed have the same test, validation and initial images",
            _unequal(results, lambda result: _start(splits[result.run.name])),
            seeds,
        ),
        Check(
            "The initial models of all runs of a seed have the same test accuracy, to the last digit",
            _unequal(results, lambda result: result.summary["curve"][0]["test_accuracy"]),
            seeds,
        ),
        Check(
            "Every run bought as many labels as were planned, and its last model learned from all of them",
            [result.run.name for result in results if _short(result)],
            runs,
        ),
        Check(
            "The epoch that was kept is the best on the validation images, the last of equals",
            [result.run.name for result in results if not all(map(_validated, result.folder.glob("models/*.pt")))],
            models,
        ),
    ]


def _leaks(split: Split, folder: pathlib.Path) -> bool:
    """Whether an id is in two parts, or one was offered that is in no worker's shard."""
    address = (folder / "run.db").resolve().as_uri() + "?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
        offered = np.array(db.execute("select item from queries").fetchall(), np.int64).ravel()
    parts = np.concatenate([split.test, split.validation, split.initial, *split.shards])
    kept = np.concatenate([split.test, split.validation, split.initial])
    return len(np.unique(parts)) < len(parts) or bool(np.isin(offered, kept).any())


def _start(split: Split) -> tuple[bytes, ...]:
    return split.test.tobytes(), split.validation.tobytes(), split.initial.tobytes()


def _unequal(results: Iterable[Result], of: Callable[[Result], Hashable]) -> list[str]:
    """Returns the runs that differ from the first of their seed."""
    first: dict[int, Hashable] = {}
    return [result.run.name for result in results if first.setdefault(result.run.seed, of(result)) != of(result)]


def _short(result: Result) -> bool:
    labels, last = result.summary["labels"], result.summary["curve"][-1]
    return labels["bought"] != result.run.settings.budget or last["labels"] != labels["total"]


def _validated(path: pathlib.Path) -> bool:
    payload = load_model(path)
    last = {entry["val_accuracy"]: entry["epoch"] for entry in payload["history"] if entry["val_accuracy"] is not None}
    return bool(last) and payload["epoch"] == last[max(last)]
