"""What the runs of a plan came to, read from their folders."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aal.app.experiments.aal_2021.plans import Run
from aal.config.errors import UserError
from aal.reporting.curves import Floats, at_labels
from aal.reporting.metrics import summary_of
from aal.reporting.record import Record, column, read


@dataclass(frozen=True)
class Result:
    """A finished run: its plan, folder, `summary.json`, and what it noted of its origin.

    `unseen` counts the labels in L when a query was drawn that the model which chose it had not learned from, the mean
    over the answered queries; `by_initial` is the share of these that the initial model chose.
    """

    run: Run
    folder: pathlib.Path
    summary: dict[str, Any]
    meta: dict[str, str]
    unseen: float
    by_initial: float

    def accuracy_at(self, labels: Iterable[int]) -> Floats:
        """Returns the test accuracy at label counts; raises UserError where the run has too few labels."""
        have, accuracy = (column(self.summary["curve"], key) for key in ("labels", "test_accuracy"))
        try:
            return at_labels(have, accuracy, np.array(list(labels), float))
        except ValueError as error:
            raise UserError(f"{self.folder}: {error}") from None


def read_results(plan: Iterable[Run], runs: pathlib.Path) -> list[Result]:
    """Reads the finished runs of a plan from the folder of their folders; raises UserError where one is unreadable."""
    records = [(run, runs / run.name, read(runs / run.name)) for run in plan]
    return [Result(run, folder, summary_of(record), record.meta, *_age(record)) for run, folder, record in records]


def _age(record: Record) -> tuple[float, float]:
    """Returns `unseen` and `by_initial`. When labels cost no time, those of the moment of the draw do not count."""
    keys = ("drawn_at", "answered_at", "version")
    drawn_at, answered_at, version = (record.queries[key][record.answered] for key in keys)
    bought = np.searchsorted(np.sort(answered_at), drawn_at, "left")
    learned = {model["version"]: model["labels"] - record.initial for model in record.models}
    return float(np.mean(bought - [learned[one] for one in version])), float(np.mean(version == 0))


def of_kind(results: Iterable[Result], **kind: Any) -> list[Result]:
    """Returns the results whose runs have these attributes, in order of seed."""
    chosen = [result for result in results if all(getattr(result.run, key) == kind[key] for key in kind)]
    return sorted(chosen, key=lambda result: result.run.seed)


def accuracies(results: Iterable[Result], labels: Sequence[int], **kind: Any) -> Floats:
    """Returns test accuracies (seeds, labels) of the runs with these attributes."""
    return np.array([result.accuracy_at(labels) for result in of_kind(results, **kind)])


def points(results: Iterable[Result], paper: Callable[[Run, int], float | None] | None = None) -> list[dict[str, Any]]:
    """Returns a row for each point of each curve; `paper` gives its accuracy, where it has such points."""
    return [
        {
            "run": result.run.name,
            **{key: getattr(result.run, key) for key in ("method", "mode", "servers", "batch", "seed")},
            **{key: point[key] for key in ("labels", "queries", "test_accuracy", "val_accuracy", "seconds")},
            **({"paper_accuracy": paper(result.run, number)} if paper else {}),
        }
        for result in results
        for number, point in enumerate(result.summary["curve"])
    ]
