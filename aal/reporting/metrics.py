"""The figures of a run, read from what it left behind: `run.db` and `config.yaml`."""

import contextlib
import json
import pathlib
import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from aal.config.errors import UserError
from aal.storage.atomic import write_whole

Column = npt.NDArray[np.float64]
Columns = dict[str, Column]
Rows = list[dict[str, Any]]

MODELS = """select version, server, model, labels, epoch, val_accuracy, test_accuracy, started_at, published_at
    from models where published_at is not null order by version"""
QUERIES = """select worker, version, newest, offered_at, drawn_at, annotator, answered_at from queries
    order by offered_at, item"""
SELECTIONS = """select worker, started_at, offered_at from selections where offered_at is not null
    order by worker, offered_at"""
WORKERS = """select worker, group_concat(distinct strategy) as strategy, count(*) as batches, sum(items) as queries
    from selections where offered_at is not null group by worker order by worker"""
LABEL_ERRORS = "select count(*) from queries join examples using (item) where label <> truth"


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
        if "wall_s" in self.meta:
            return float(self.meta["wall_s"])
        parts = [self.queries[key] for key in ("offered_at", "drawn_at", "answered_at")]
        times = known(np.concatenate([*parts, column(self.models, "published_at")]))
        return float(times.max()) if times.size else None


def read(run: pathlib.Path) -> Record:
    """Reads the folder of a run, finished or not.

    Raises:
        UserError: the folder holds no readable run.
    """
    for name in ("run.db", "config.yaml"):
        if not (run / name).is_file():
            raise UserError(f"{run}: is no run folder, it has no {name}")
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        # A URI of the absolute path, so that no character of a folder's name is taken for an option.
        address = (run / "run.db").resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            db.row_factory = sqlite3.Row
            db.execute("begin")  # one moment for all tables, should the run still be going on
            return _read(db, config if isinstance(config, dict) else {})
    except sqlite3.Error as error:
        raise UserError(f"{run / 'run.db'}: cannot be read: {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{run / 'config.yaml'}: cannot be read") from None


def _read(db: sqlite3.Connection, config: dict[str, Any]) -> Record:
    return Record(
        config=config,
        meta=dict(db.execute("select key, value from meta")),
        initial=db.execute("select count(*) from examples where part = 'initial'").fetchone()[0],
        label_errors=db.execute(LABEL_ERRORS).fetchone()[0],
        models=[dict(row) for row in db.execute(MODELS)],
        queries=_columns(db, QUERIES),
        waits=_columns(db, "select annotator, asked_at, got_at from waits"),
        selections=_columns(db, SELECTIONS),
        workers=[dict(row) for row in db.execute(WORKERS)],
        breaks=[dict(row) for row in db.execute("select stopped_at, ended from breaks order by resumed_at")],
    )


def _columns(db: sqlite3.Connection, query: str) -> Columns:
    cursor = db.execute(query)
    names = [about[0] for about in cursor.description]
    table = np.array([tuple(row) for row in cursor], dtype=float).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def column(rows: Rows, key: str) -> Column:
    """Returns one number of each row."""
    return np.array([row[key] for row in rows], dtype=float)


def summarise(run: pathlib.Path) -> dict[str, Any]:
    """Returns what `summary.json` holds, for the run in this folder; raises `UserError` where there is no run."""
    return summary_of(read(run))


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
    - query_interval_s: between two consecutive batches offered by the same worker, over all such pairs of all workers.
    - staleness: the newest version when a query was offered, minus the version that chose it, over all offered queries.
    - labels_per_s: labels bought, divided by the time from the first offer to the last answer.
    - wall_s: seconds that the run took.
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
    tested = [point for point in curve if point["test_accuracy"] is not None]
    accuracy = column(tested, "test_accuracy")
    stale = known(record.queries["newest"] - record.queries["version"])
    same_worker = np.diff(record.selections["worker"]) == 0
    return {
        **{key: record.config.get(key) for key in ("data_type", "mode", "engine", "seed")},
        "labels": {"initial": record.initial, "bought": bought, "total": record.initial + bought},
        "trainings": len(curve),
        "curve": curve,
        "final_test_accuracy": _final(tested),
        "mean_curve_accuracy": float(accuracy.mean()) if tested else None,
        "aubc": _aubc(column(tested, "labels"), accuracy) if tested else None,
        "annotator_wait_s": _spread(record.waits["got_at"] - record.waits["asked_at"]),
        "query_interval_s": _spread(np.diff(record.selections["offered_at"])[same_worker]),
        "staleness": {"mean": float(stale.mean()), "max": int(stale.max())}
        if stale.size
        else {"mean": None, "max": None},
        "labels_per_s": _rate(record),
        "wall_s": record.wall_s,
    }


def known(values: Column) -> Column:
    """Returns the values that are there."""
    return values[~np.isnan(values)]


def _final(tested: Rows) -> float | None:
    last = max(tested, key=lambda point: (point["labels"], point["version"]), default=None)
    return last["test_accuracy"] if last else None


def _aubc(labels: Column, accuracy: Column) -> float:
    at, which = np.unique(labels, return_inverse=True)
    mean = np.bincount(which, accuracy) / np.bincount(which)
    return float(np.trapezoid(mean, at) / np.ptp(at)) if at.size > 1 else float(mean[0])


def _spread(seconds: Column) -> dict[str, float | None]:
    seconds = known(seconds)
    if not seconds.size:
        return dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return {"mean": float(seconds.mean()), "p50": p50, "p95": p95, "p99": p99, "max": float(seconds.max())}


def _rate(record: Record) -> float | None:
    answered, offered = record.queries["answered_at"][record.answered], known(record.queries["offered_at"])
    span = answered.max() - offered.min() if answered.size and offered.size else 0.0
    return float(answered.size / span) if span > 0 else None


def write_summary(run: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json`, which is never half-written."""
    write_whole(run / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
