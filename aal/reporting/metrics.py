"""The figures of a run, read from what it left behind: `run.db` and `config.yaml`."""

import contextlib
import json
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from aal.config.errors import UserError
from aal.reporting.curves import aubc
from aal.storage.atomic import write_whole
from aal.storage.run_reader import Column, Columns, Rows, RunReader


@dataclass(frozen=True)
class Record:
    """A run as it was written down; times are seconds since it began, a missing number is NaN in a column.

    `config` and `meta` are what the program noted, `initial` counts the labels of the start, `label_errors` the answers
    that are not the true label; `models` are in order of version, `queries` in order of offering, `selections` by
    worker and then by time; `workers` sums them up,
    `breaks` are the interruptions.
    """

    config: dict[str, Any]
    meta: dict[str, str]
    initial: int
    label_errors: int
    models: Rows
    queries: Columns
    waits: Columns
    selections: Columns
    workers: Rows
    breaks: Rows

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which of the queries have been answered."""
        return ~np.isnan(self.queries["answered_at"])

    @property
    def wall_s(self) -> float | None:
        """Seconds that the run took: `wall_s` of the meta table, or else the last time in the journal."""
        with contextlib.suppress(KeyError, ValueError):
            return float(self.meta["wall_s"])
        parts = [self.queries[key] for key in ("offered_at", "drawn_at", "answered_at")]
        times = present(np.concatenate([*parts, column(self.models, "published_at")]))
        return float(times.max()) if times.size else None


def read(run: pathlib.Path) -> Record:
    """Reads the directory of a run, finished or not.

    Raises:
        UserError: the directory holds no readable run.
    """
    for name in ("run.db", "config.yaml"):
        if not (run / name).is_file():
            raise UserError(f"{run}: is no run directory, it has no {name}")
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{run / 'config.yaml'}: cannot be read") from None
    with RunReader(run) as reader:
        return Record(
            config=config if isinstance(config, dict) else {},
            meta=reader.meta(),
            initial=reader.initial_labels(),
            label_errors=reader.label_errors(),
            models=reader.models(),
            queries=reader.query_times(),
            waits=reader.waits(),
            selections=reader.selections(),
            workers=reader.workers(),
            breaks=reader.breaks(),
        )


def column(rows: Rows, key: str) -> Column:
    """Returns one number of each row."""
    return np.array([row[key] for row in rows], dtype=float)


def summary_of(record: Record) -> dict[str, Any]:
    """Returns what `summary.json` holds; what an unfinished run does not know yet is null.

    - labels: `initial` from the start, `bought` = answered queries, `total` = both.
    - trainings: published models.
    - curve: the models in order of version. `labels` is the training set, `queries` those of them that were bought,
      `seconds` the time of publication.
    - final_test_accuracy: of the model trained on most labels; of several, of the newest.
    - mean_curve_accuracy: mean of the test accuracies of the curve.
    - aubc: area under test accuracy against labels by the trapezoid rule, divided by the span of labels. Models with
      equally many labels count as one with their mean accuracy; where all have equally many, it is that mean.
    - annotator_wait_s: from asking for a query to having one, over all draws.
    - annotators_waited: share of the annotators' time, from 0 to 1: all waits, divided by all waits and all times from
      draw to answer.
    - query_interval_s: between two consecutive batches offered by the same worker, over all such pairs of all workers.
    - staleness: the newest version when a query was offered, minus the version that chose it, over all offered queries.
    - labels_per_s: labels bought, divided by the time from the first offer to the last answer.
    - wall_s: seconds that the run took; virtual ones of a simulated run.
    - networks: the curve and its figures for each network by itself; only where the run trained several.
    """
    bought = int(record.answered.sum())
    curve = [
        {
            **{key: model[key] for key in ("version", "server", "labels")},
            "queries": model["labels"] - record.initial,
            **{key: model[key] for key in ("test_accuracy", "val_accuracy")},
            "seconds": model["published_at"],
        }
        for model in record.models
    ]
    stale = present(record.queries["newest"] - record.queries["version"])
    waits = record.waits["got_at"] - record.waits["asked_at"]
    same_worker = np.diff(record.selections["worker"]) == 0
    return {
        **{key: record.config.get(key) for key in ("data_type", "mode", "engine", "seed")},
        "labels": {"initial": record.initial, "bought": bought, "total": record.initial + bought},
        "trainings": len(curve),
        "curve": curve,
        **_figures(curve),
        "annotator_wait_s": _distribution(waits),
        "annotators_waited": waited_share(record),
        "query_interval_s": _distribution(np.diff(record.selections["offered_at"])[same_worker]),
        "staleness": {
            "mean": float(stale.mean()) if stale.size else None,
            "max": int(stale.max()) if stale.size else None,
        },
        "labels_per_s": _rate(record),
        "wall_s": record.wall_s,
        **_networks(record, curve),
    }


def _figures(curve: Rows) -> dict[str, float | None]:
    """The figures of a curve; null where none of its models was tested."""
    tested = [point for point in curve if point["test_accuracy"] is not None]
    if not tested:
        return dict.fromkeys(("final_test_accuracy", "mean_curve_accuracy", "aubc"))
    accuracy = column(tested, "test_accuracy")
    last = max(tested, key=lambda point: (point["labels"], point["version"]))
    return {
        "final_test_accuracy": last["test_accuracy"],
        "mean_curve_accuracy": float(accuracy.mean()),
        "aubc": aubc(column(tested, "labels"), accuracy),
    }


def _networks(record: Record, curve: Rows) -> dict[str, Rows]:
    """The entry `networks` of a run with several networks; nothing for a run with one."""
    names = [model["model"] for model in record.models]
    if len(set(names)) < 2:
        return {}
    curves = {
        name: [point for point, its in zip(curve, names, strict=True) if its == name] for name in sorted(set(names))
    }
    return {
        "networks": [
            {"name": name, "trainings": len(own), "curve": own, **_figures(own)} for name, own in curves.items()
        ]
    }


def waited_share(record: Record) -> float | None:
    """Returns which share of their time the annotators waited, from 0 to 1; None where they never drew."""
    waited = present(record.waits["got_at"] - record.waits["asked_at"]).sum()
    labelled = present(record.queries["answered_at"] - record.queries["drawn_at"]).sum()
    return float(waited / (waited + labelled)) if waited + labelled > 0 else None


def present(values: Column) -> Column:
    """Returns the values that are not missing."""
    return values[~np.isnan(values)]


def _distribution(seconds: Column) -> dict[str, float | None]:
    seconds = present(seconds)
    if not seconds.size:
        return dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return {"mean": float(seconds.mean()), "p50": p50, "p95": p95, "p99": p99, "max": float(seconds.max())}


def _rate(record: Record) -> float | None:
    answered, offered = record.queries["answered_at"][record.answered], present(record.queries["offered_at"])
    span = answered.max() - offered.min() if answered.size and offered.size else 0.0
    return float(answered.size / span) if span > 0 else None


def write_summary(run: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json`, which is never half-written."""
    write_whole(run / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
